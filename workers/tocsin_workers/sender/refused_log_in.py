"""A refused log-in in words that name its cause: what a profile is paused with. Decides, does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_workers.diagnosis.verdicts import explain_refused_login, provider_of
from tocsin_workers.smtp.errors import SmtpAuthError
from tocsin_workers.tokens.token_facts import read_token_facts

if TYPE_CHECKING:
    from datetime import datetime

    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.authorizing import Authorization


def explained(
    profile: SenderProfile, authorization: Authorization, error: SmtpAuthError, *, now: datetime
) -> SmtpAuthError:
    """Give the error with its cause and fix, as far as reply and token tell; as it is where they do not."""
    token, oauth_profile = authorization.token, authorization.oauth_profile
    verdict = explain_refused_login(
        provider_of(profile, oauth_profile),
        profile.login,
        None if token is None else read_token_facts(token.token),
        error,
        now=now,
        oauth_profile=oauth_profile,
        profile_name=profile.name,
        host=profile.host,
    )
    if verdict is None:
        return error
    # A list of causes is for a terminal; a reason is one line.
    fix = verdict.fix if not verdict.candidates else f"`tocsin profile check {profile.name}` tells how to find out."
    problem = error.problem if verdict.meaning == error.problem else f"{error.problem} {verdict.meaning}"
    return SmtpAuthError(
        problem,
        reply=error.reply,
        detail=error.detail,
        mechanism=error.mechanism,
        trouble=error.trouble,
        fix=fix,
        scope=error.scope,
    )
