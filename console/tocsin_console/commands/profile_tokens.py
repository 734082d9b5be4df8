"""What a sending profile has to do with OAuth profiles: the one made along with it, and the one that it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_console.commands.oauth_options import read_request
from tocsin_console.commands.oauth_writing import tell_to_sign_in
from tocsin_console.output import say
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.oauth_providers import SIGN_IN_GRANTS, OAuthProvider
from tocsin_schema.ledger.refresh_tokens import list_refresh_tokens
from tocsin_schema.ledger.sending_profile_rules import Auth

if TYPE_CHECKING:
    from tocsin_console.commands.oauth_options import OAuthOptions
    from tocsin_console.commands.profile_options import ProfileOptions
    from tocsin_console.reading.oauth_request import OAuthRequest
    from tocsin_console.reading.session import Session
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_schema.ledger.sending_profiles import SendingProfile


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """The OAuth profile that a sending profile uses, and who has signed in there, in lower case."""

    oauth: OAuthProfile
    signed_in: frozenset[str]


def asked_oauth_profile(
    options: ProfileOptions, oauth_options: OAuthOptions, endpoint_ca_file: str | None
) -> OAuthRequest | None:
    """Say which OAuth profile is to be made in the same step, None for none. Raises UsageError."""
    flags = [*oauth_options.flags, *(["--endpoint-ca-file"] if endpoint_ca_file is not None else [])]
    if not flags:
        return None
    if options.oauth is not None:
        raise UsageError(
            f"--oauth names an OAuth profile that there is; {flags[0]} would make another one.",
            fix=f"Leave --oauth out, or change that one with `tocsin oauth set {options.oauth}`.",
            scope=Scope.PROFILE,
        )
    if options.password_file is not None:
        raise UsageError(
            "A profile logs in by OAuth or with a password, not both.",
            fix=f"Leave out {flags[0]} or --password-file.",
            scope=Scope.PROFILE,
        )
    if options.auth is not None and options.auth is not Auth.OAUTH:
        raise UsageError(
            f"{flags[0]} is of no use with --auth {options.auth}.", fix="Leave one of them out.", scope=Scope.PROFILE
        )
    return read_request(oauth_options, ca_file=endpoint_ca_file)


async def tokens_used_by(session: Session, profile: SendingProfile) -> TokensUsed | None:
    """Read which OAuth profile a sending profile uses, None where it uses none."""
    if profile.oauth_profile_id is None:
        return None
    oauth = await oauth_profiles.get_by_id(session.connection, profile.oauth_profile_id)
    if oauth is None:
        return None
    sign_ins = await list_refresh_tokens(session.connection, oauth.id)
    return TokensUsed(oauth, frozenset(sign_in.subject.lower() for sign_in in sign_ins))


def tell_what_it_lacks(profile: SendingProfile, used: TokensUsed) -> None:
    """Say whose sign-in is missing, and that the tokens are another provider's."""
    if is_another_cloud(profile.provider, used.oauth.provider):
        say(
            f"Warning: the mail service is {profile.provider}, and OAuth profile {used.oauth.name!r} gets its tokens"
            f" from {used.oauth.provider}, whose tokens it does not take. If that is not meant:"
            f" `tocsin profile set {profile.name} --oauth OTHER`."
        )
    if used.oauth.grant_type in SIGN_IN_GRANTS and profile.login.lower() not in used.signed_in:
        tell_to_sign_in(used.oauth, [profile.login])


def is_another_cloud(mail_service: str, token_service: str) -> bool:
    """Whether tokens of one provider are shown to another; of custom ones nobody knows whose they are."""
    known = {provider.value for provider in OAuthProvider} - {OAuthProvider.CUSTOM.value}
    return mail_service in known and token_service in known and mail_service != token_service


async def left_alone_by(session: Session, profile: SendingProfile) -> OAuthProfile | None:
    """Give the OAuth profile that was made along with a removed sending profile and is used by nobody now."""
    used = await tokens_used_by(session, profile)
    if used is None or used.oauth.name != profile.name:
        return None
    return None if await oauth_profiles.mailboxes_that_use(session.connection, used.oauth.id) else used.oauth
