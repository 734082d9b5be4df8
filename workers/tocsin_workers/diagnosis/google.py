"""What Google says when it lets nobody in. Its tokens tell nothing, but its refusals come with JSON. Pure.

A refused token is answered with `334` and `{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`,
then `535 5.7.8`: the same for a token of another scope and for one of another account.

Source: developers.google.com, "OAuth 2.0 mechanism for IMAP, POP and SMTP" and "Using OAuth 2.0 for server to server
applications"; for the replies see `classification.google`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import GOOGLE_SCOPE, SIGN_IN_GRANTS, OAuthProvider
from tocsin_workers.diagnosis.causes import Candidate, Cause, Verdict
from tocsin_workers.diagnosis.connecting import use_oauth
from tocsin_workers.tokens.refusal_fixes import how_to_sign_in

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

SCOPE = GOOGLE_SCOPE
_DELEGATION = "Security, Access and data control, API controls, Manage domain-wide delegation"


def is_google(provider: str) -> bool:
    """Whether a provider is Google Workspace."""
    return provider == OAuthProvider.GOOGLE


def refused_token(login: str, oauth_profile: OAuthProfile | None, profile_name: str) -> Verdict:
    """Answer a refusal of a token."""
    if oauth_profile is not None and SCOPE not in (oauth_profile.scope or "").split():
        return wrong_scope(oauth_profile)
    sign_in = None
    if oauth_profile is not None and oauth_profile.grant_type in SIGN_IN_GRANTS:
        sign_in = how_to_sign_in(oauth_profile, login, again=True)
    return Verdict.one_of(
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        f"Google does not take the token for {login}, and says the same for several causes.",
        Candidate(
            Cause.TOKEN_OF_ANOTHER_ACCOUNT,
            f"{login} is not the mailbox's own address but an alias or a group"
            + (f", or another than {login} signed in" if sign_in else ""),
            f"give the mailbox's primary address: `tocsin profile set {profile_name} --user ADDRESS`"
            + (f"; or {sign_in}." if sign_in else "."),
        ),
        Candidate(
            Cause.NOT_A_WORKSPACE_MAILBOX,
            f"in the Admin console, {login} is suspended or has no Gmail, or Apps, Google Workspace, Gmail, End User "
            "Access does not let mail programs in",
            "switch it on for the mailbox's organisational unit.",
        ),
        Candidate(
            Cause.WRONG_SCOPE,
            f"the scope that was granted is not exactly {SCOPE}",
            f"grant exactly {SCOPE}: " + (f"{sign_in}." if sign_in else f"in the Admin console ({_DELEGATION})."),
        ),
    )


def wrong_scope(oauth_profile: OAuthProfile) -> Verdict:
    """Say that SMTP takes another scope than the profile asks for."""
    return Verdict(
        Cause.WRONG_SCOPE,
        f"The OAuth profile asks for the scope {oauth_profile.scope or '(none)'}; Gmail's SMTP takes only {SCOPE}.",
        f"`tocsin oauth set {oauth_profile.name} --scope {SCOPE}`, and grant the same scope at Google.",
    )


def app_password_needed(profile_name: str) -> Verdict:
    """Answer 534 5.7.9: an ordinary password."""
    return Verdict(
        Cause.APP_PASSWORD_NEEDED,
        "Google takes no ordinary password for SMTP.",
        f"Let the profile log in by OAuth: {use_oauth(profile_name)}; or give it an app password (2-Step Verification "
        f"has to be on for the account): `tocsin profile replace-password {profile_name}`.",
    )
