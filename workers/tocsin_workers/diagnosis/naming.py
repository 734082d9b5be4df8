"""The fix of an error with the sending profile's names in it: for senders, whose errors know none. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_schema.errors import TocsinError, TokenError
from tocsin_schema.ledger.sending_profile_rules import Auth
from tocsin_workers.diagnosis.connecting import explain_failed_session
from tocsin_workers.smtp.errors import SmtpSessionError
from tocsin_workers.smtp.tls import TlsMode
from tocsin_workers.tokens.refusal_fixes import for_sending_profile

if TYPE_CHECKING:
    from tocsin_schema.ledger.sending import SenderProfile


def fix_for(error: TocsinError, profile: SenderProfile) -> str | None:
    """Say what to do about an error in a profile's session; None where there is nothing to do but wait."""
    match error:
        case SmtpSessionError() if error.trouble is not None:
            uses_oauth = profile.auth == Auth.OAUTH
            verdict = explain_failed_session(
                error, profile_name=profile.name, tls=TlsMode(profile.tls), uses_oauth=uses_oauth
            )
            return verdict.fix
        case TokenError(fix=str(fix)):
            return for_sending_profile(fix, profile.name, profile.login)
        case _:
            return error.fix
