"""Making and changing OAuth profiles: what is checked, read, sealed and written, in this order.

Shared by `tocsin oauth` and by `tocsin profile add`, which makes both profiles in one step. Secrets are read
between two visits to the ledger, so that nothing is held up while a person types.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tocsin_console.output import listed, say
from tocsin_console.reading.credential_ends import warning_of_end
from tocsin_console.reading.inputs import read_secret
from tocsin_console.reading.oauth_files import only_one_from_standard_input, open_key, read_key_files
from tocsin_console.reading.oauth_mailbox import checked_mailbox
from tocsin_console.reading.oauth_request import changed_profile, new_profile
from tocsin_console.reading.oauth_rules import Proof, check_nobody_changed_it, fit_of
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import oauth_profiles
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.ledger.oauth_profiles import (
    CLIENT_SECRET_PURPOSE,
    PRIVATE_KEY_PURPOSE,
    NewOAuthProfile,
    OAuthProfile,
    SealedKey,
    SealedSecrets,
)
from tocsin_schema.ledger.oauth_providers import GrantType, OAuthProvider
from tocsin_schema.ledger.pausing import resume_users_of_oauth_profile
from tocsin_schema.ledger.refresh_tokens import list_refresh_tokens, store_sign_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from tocsin_console.commands.oauth_options import OAuthOptions
    from tocsin_console.reading.oauth_credentials import KeyCredential, ServiceAccount
    from tocsin_console.reading.oauth_request import OAuthRequest
    from tocsin_console.reading.session import Session
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Proofs:
    """The secrets that came along or were asked for, in clear, for as long as it takes to seal them."""

    client_secret: str | None = field(default=None, repr=False)
    key: KeyCredential | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """A profile that can be, checked against the ledger, and what it takes to write it.

    `before` is None for a new profile. `sealer` is None where there is nothing to seal.
    """

    before: OAuthProfile | None
    profile: NewOAuthProfile | OAuthProfile
    reads: frozenset[Proof]
    mailbox: str | None
    sealer: Sealer | None
    forgets: frozenset[Proof] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What a change led to: who goes on, whose sign-ins are gone, and which mailboxes live on the profile."""

    resumed: list[str]
    forgotten: list[str]
    mailboxes: list[str]


async def plan_new(
    session: Session,
    name: str,
    provider: OAuthProvider,
    request: OAuthRequest,
    *,
    mailbox: str | None,
    if_taken: str | None = None,
) -> Plan:
    """Check that the profile can be. Raises UsageError, SealError.

    `mailbox` is whose refresh token comes along; `if_taken` what to do where there is a profile of that name.
    """
    defaults = await oauth_profiles.get_defaults(session.connection, provider.value)
    planned = new_profile(name, request, defaults)
    if any(other.name == name for other in await oauth_profiles.list_profiles(session.connection)):
        raise UsageError(
            f"There is an OAuth profile {name!r} already.",
            fix=if_taken or f"Choose another name, or change it with `tocsin oauth set {name}`.",
            scope=Scope.OAUTH_PROFILE,
        )
    reads = request.gives | set(planned.asks)
    return Plan(None, planned.profile, reads, _checked_mailbox(reads, mailbox), await _sealer(session, reads))


async def plan_change(session: Session, name: str, request: OAuthRequest, *, mailbox: str | None) -> Plan:
    """Check that the change can be. Raises UsageError, SealError."""
    before = await oauth_profiles.get_by_name(session.connection, name)
    defaults = await oauth_profiles.get_defaults(session.connection, before.provider)
    planned = changed_profile(before, request, defaults)
    reads = request.gives | set(planned.asks)
    sealer = await _sealer(session, reads)
    return Plan(before, planned.profile, reads, _checked_mailbox(reads, mailbox), sealer, planned.forgets)


def read_proofs(plan: Plan, options: OAuthOptions, account: ServiceAccount | None) -> Proofs:
    """Read every secret of the plan from its file, standard input or a prompt. Raises UsageError."""
    only_one_from_standard_input(
        options.client_secret_file, options.certificate_password_file, options.refresh_token_file
    )
    secret = refresh_token = None
    if Proof.CLIENT_SECRET in plan.reads:
        secret = read_client_secret(options.client_secret_file)
    key = account.key if account is not None else None
    if Proof.PRIVATE_KEY in plan.reads and key is None:
        files = read_key_files(options.certificate_file, options.private_key_file)
        key = open_key(files, options.certificate_password_file)
    if Proof.REFRESH_TOKEN in plan.reads:
        refresh_token = read_secret(options.refresh_token_file, "The refresh token", flag="--refresh-token-file")
    if key is not None:
        _check_key(plan, key)
    return Proofs(secret, key, refresh_token)


def read_client_secret(source: str | None) -> str:
    """Read a client secret. Raises UsageError."""
    return read_secret(source, "The client secret", flag="--client-secret-file")


async def write_new(connection: Connection, plan: Plan, proofs: Proofs) -> None:
    """Write a planned profile with its secrets, and the sign-in that came along. Raises UsageError."""
    assert isinstance(plan.profile, NewOAuthProfile)
    profile = plan.profile
    sealed = SealedSecrets()
    if proofs.key is not None:
        profile = replace(
            profile,
            certificate_pem=proofs.key.certificate_pem,
            certificate_expires_at=proofs.key.certificate_expires_at,
        )
    if plan.sealer is not None:
        secret, key = proofs.client_secret, proofs.key
        sealed = SealedSecrets(
            None if secret is None else seal_client_secret(plan.sealer, profile.id, secret),
            None if key is None else _seal_key(plan.sealer, profile.id, key),
        )
    added = await oauth_profiles.add(connection, profile, sealed=sealed)
    await _store_sign_in(connection, plan, added.id, proofs)


async def write_change(connection: Connection, plan: Plan, proofs: Proofs, request: OAuthRequest) -> Change:
    """Make the planned change to the profile as it stands now, if nobody moved it meanwhile. Raises UsageError."""
    assert plan.before is not None
    now = await oauth_profiles.lock(connection, plan.before.name)
    if plan.reads:
        check_nobody_changed_it(plan.before, now)
    defaults = await oauth_profiles.get_defaults(connection, now.provider)
    planned = changed_profile(now, replace(request, gives=plan.reads), defaults)
    after = planned.profile
    signed_in = {row.subject for row in await list_refresh_tokens(connection, now.id)}
    await oauth_profiles.update(connection, after)
    if plan.sealer is not None:
        await _replace_secrets(connection, plan.sealer, after, proofs)
    await _forget(connection, after.id, planned.forgets)
    forgotten = signed_in - {row.subject for row in await list_refresh_tokens(connection, now.id)}
    await _store_sign_in(connection, plan, after.id, proofs)
    # A date, say, is no reason to try refused credentials again.
    is_corrected = plan.reads or oauth_profiles.asks_for_other_tokens(now, after)
    resumed = await resume_users_of_oauth_profile(connection, after.id) if is_corrected else []
    return Change(resumed, sorted(forgotten), await oauth_profiles.mailboxes_that_use(connection, after.id))


def seal_client_secret(sealer: Sealer, profile_id: UUID, secret: str) -> bytes:
    """Seal a client secret to its profile."""
    return sealer.seal(secret, purpose=CLIENT_SECRET_PURPOSE, row_id=str(profile_id))


def sign_in_key(profile_id: UUID, mailbox: str) -> TokenKey:
    """Give whose token a sign-in for a mailbox is good for. No provider tells mailboxes apart by their case."""
    return TokenKey(profile_id, mailbox.lower())


def warn_of_ends(profile: NewOAuthProfile | OAuthProfile, proofs: Proofs) -> None:
    """Tell the person if what the profile lives on has ended, or will soon."""
    now = datetime.now(UTC)
    ends = [
        ("The client secret", profile.secret_expires_at),
        ("The certificate", proofs.key.certificate_expires_at if proofs.key is not None else None),
    ]
    for warning in filter(None, (warning_of_end(what, ends_at, now=now) for what, ends_at in ends)):
        say(f"Warning: {warning}")


def tell_what_is_stored(plan: Plan) -> None:
    """Say for whom a sign-in is stored, and that a client secret or a key has had its day."""
    if plan.mailbox is not None:
        say(f"The refresh token for {plan.mailbox} is stored.")
    if Proof.CLIENT_SECRET in plan.forgets:
        by = "the certificate" if Proof.PRIVATE_KEY in plan.reads else f"the grant {plan.profile.grant_type}"
        say(f"It proves itself with {by} from now on; its client secret is forgotten.")
    if Proof.PRIVATE_KEY in plan.forgets:
        by = "the client secret" if Proof.CLIENT_SECRET in plan.reads else f"the grant {plan.profile.grant_type}"
        say(f"It proves itself with {by} from now on; its private key is forgotten, and its certificate.")


def tell_who_goes_on(resumed: list[str]) -> None:
    """Name the sending profiles that were paused until now."""
    if resumed:
        say(f"Paused until now, and going on: {listed(resumed)}.")


def tell_next_step(profile: NewOAuthProfile | OAuthProfile, mailboxes: Sequence[str] = ()) -> None:
    """Say what is still to be done before there are tokens for these mailboxes."""
    if profile.grant_type == GrantType.DEVICE_CODE:
        tell_to_sign_in(profile, mailboxes)
    if profile.grant_type == GrantType.JWT_BEARER and profile.delegation_client_id is not None:
        say(
            f"Now have domain-wide delegation granted to client id {profile.delegation_client_id} for scope"
            f" {profile.scope}, in Google's Admin console (Security, API controls, Domain-wide delegation);"
            f" then try it: {_for_each(mailboxes, f'tocsin oauth check {profile.name} --user')}."
        )


def needs_next_step(plan: Plan) -> bool:
    """Whether a change left something to be done before there are tokens again."""
    before, after = plan.before, plan.profile
    if before is None or before.grant_type != after.grant_type:
        return True
    return before.delegation_client_id != after.delegation_client_id


def tell_to_sign_in(profile: NewOAuthProfile | OAuthProfile, mailboxes: Sequence[str]) -> None:
    """Say how these mailboxes' people give the profile a sign-in; nothing where it does not live on sign-ins."""
    match GrantType(profile.grant_type):
        case GrantType.DEVICE_CODE:
            say(f"Now sign in: {_for_each(mailboxes, f'tocsin oauth acquire {profile.name} --user')}.")
        case GrantType.REFRESH_TOKEN:
            command = f"tocsin oauth set {profile.name} --refresh-token-file F --user"
            say(f"Now give it a refresh token: {_for_each(mailboxes, command)}.")
        case _:
            return


def _for_each(mailboxes: Sequence[str], command: str) -> str:
    return listed(f"`{command} {mailbox}`" for mailbox in mailboxes or ["MAILBOX"])


async def _forget(connection: Connection, profile_id: UUID, proofs: AbstractSet[Proof]) -> None:
    if Proof.CLIENT_SECRET in proofs:
        await oauth_profiles.forget_client_secret(connection, profile_id)
    if Proof.PRIVATE_KEY in proofs:
        await oauth_profiles.forget_private_key(connection, profile_id)


async def _sealer(session: Session, reads: AbstractSet[Proof]) -> Sealer | None:
    return await session.sealer() if reads else None


async def _store_sign_in(connection: Connection, plan: Plan, profile_id: UUID, proofs: Proofs) -> None:
    if proofs.refresh_token is None:
        return
    assert plan.sealer is not None
    assert plan.mailbox is not None
    key = sign_in_key(profile_id, plan.mailbox)
    await store_sign_in(connection, plan.sealer, key, proofs.refresh_token, account=None, lifetime_seconds=None)


async def _replace_secrets(connection: Connection, sealer: Sealer, profile: OAuthProfile, proofs: Proofs) -> None:
    if proofs.client_secret is not None:
        sealed = seal_client_secret(sealer, profile.id, proofs.client_secret)
        await oauth_profiles.replace_client_secret(
            connection, profile, sealed_client_secret=sealed, expires_at=profile.secret_expires_at
        )
    if proofs.key is not None:
        key = SealedKey(
            sealed_private_key=_seal_key(sealer, profile.id, proofs.key),
            certificate_pem=proofs.key.certificate_pem,
            certificate_expires_at=proofs.key.certificate_expires_at,
            key_id=profile.key_id,
        )
        await oauth_profiles.replace_private_key(connection, profile, key)


def _seal_key(sealer: Sealer, profile_id: UUID, key: KeyCredential) -> bytes:
    return sealer.seal(key.private_key_pem, purpose=PRIVATE_KEY_PURPOSE, row_id=str(profile_id))


def _check_key(plan: Plan, key: KeyCredential) -> None:
    fit = fit_of(OAuthProvider(plan.profile.provider), GrantType(plan.profile.grant_type))
    if fit.needs_certificate and key.certificate_pem is None:
        raise UsageError(
            "This OAuth profile cannot be: there is a private key and no certificate.",
            fix="Give --certificate-file too: the certificate that the application has registered.",
            scope=Scope.OAUTH_PROFILE,
        )
    if fit.needs_rsa and not key.is_rsa:
        raise UsageError(
            "This OAuth profile cannot be: its key is not an RSA key, and the provider takes no other.",
            fix="Make an RSA key of 2048 bits or more.",
            scope=Scope.OAUTH_PROFILE,
        )


def _checked_mailbox(reads: AbstractSet[Proof], mailbox: str | None) -> str | None:
    """Give the mailbox that a refresh token is for; it is of no use without one. Raises UsageError."""
    if Proof.REFRESH_TOKEN not in reads:
        return None
    if mailbox is None:
        raise UsageError(
            "It is not said which mailbox the refresh token is for.",
            fix="Give --user MAILBOX.",
            scope=Scope.OAUTH_PROFILE,
        )
    return checked_mailbox(mailbox)
