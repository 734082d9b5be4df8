"""What Google says when it lets nobody in. Its tokens tell nothing, but its refusals come with JSON. Pure.

A refused token is answered with `334` and `{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`,
then `535 5.7.8`: the same for a token of another scope and for one of another account.

Source: developers.google.com, "OAuth 2.0 mechanism for IMAP, POP and SMTP" and "Using OAuth 2.0 for server to server
applications"; for the replies see `classification.google`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import OAuthProvider
from tocsin_workers.diagnosis.causes import Candidate, Cause, Verdict

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

#: The one scope that SMTP takes; gmail.send and the like are for Google's HTTP API.
SCOPE = "https://mail.google.com/"
_DELEGATION = "Security, Access and data control, API controls, Manage domain-wide delegation"


def is_google(provider: str) -> bool:
    """Whether a provider is Google Workspace."""
    return provider == OAuthProvider.GOOGLE


def refused_token(login: str, oauth_profile: OAuthProfile | None) -> Verdict:
    """Answer a refusal of a token."""
    if oauth_profile is not None and SCOPE not in (oauth_profile.scope or "").split():
        return wrong_scope(oauth_profile)
    return Verdict.one_of(
        Cause.TOKEN_OF_ANOTHER_ACCOUNT,
        f"Google does not take the token for {login}, and says the same for several causes.",
        Candidate(
            Cause.TOKEN_OF_ANOTHER_ACCOUNT,
            f"the profile's --user is not the mailbox's own address (an alias or a group), or another than {login} "
            "signed in",
            "give the mailbox's primary address with `tocsin profile set --user`, or sign in as it "
            "(`tocsin oauth acquire`).",
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
            f"grant exactly {SCOPE}: for a service account in the Admin console ({_DELEGATION}), else sign in again.",
        ),
    )


def wrong_scope(oauth_profile: OAuthProfile) -> Verdict:
    """Say that SMTP takes another scope than the profile asks for."""
    return Verdict(
        Cause.WRONG_SCOPE,
        f"The OAuth profile asks for the scope {oauth_profile.scope or '(none)'}; Gmail's SMTP takes only {SCOPE}.",
        f"`tocsin oauth set {oauth_profile.name} --scope {SCOPE}`, and grant the same scope at Google.",
    )


def app_password_needed() -> Verdict:
    """Answer 534 5.7.9: an ordinary password."""
    return Verdict(
        Cause.APP_PASSWORD_NEEDED,
        "Google takes no ordinary password for SMTP.",
        "Use --auth oauth, or an app password (2-Step Verification has to be on for the account).",
    )
