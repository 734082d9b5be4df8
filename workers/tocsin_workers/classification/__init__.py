"""What a reply means for us: a pure function from phase and reply to one of a closed set of outcomes.

The table is data, a row a `rules.Rule`, a module a provider. It is looked through in order, and the first row
that fits decides: text patterns first, because codes collide (5.2.2 is a full mailbox or a spent quota), then
enhanced codes; what is left is told by the first digit and the phase.

The sources named beside the rows:

    MS-NDR    learn.microsoft.com/troubleshoot/exchange/email-delivery/ndr/
              non-delivery-reports-in-exchange-online
    MS-THR    learn.microsoft.com/troubleshoot/exchange/send-emails/smtp-submission-improvements
    MS-OAUTH  learn.microsoft.com/exchange/client-developer/legacy-protocols/
              how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth
    MS-BASIC  techcommunity.microsoft.com, "Exchange Online to retire Basic auth for Client Submission"
    G-ERR     support.google.com/a/answer/3726730
    G-RELAY   support.google.com/a/answer/6140680
    SES-SMTP  docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html
    SES-QE    docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html
    SES-Q     docs.aws.amazon.com/ses/latest/dg/quotas.html
    SES-CRED  docs.aws.amazon.com/ses/latest/dg/smtp-credentials.html
    KUMO      github.com/KumoCorp/kumomta: assets/bounce_classifier/iana.toml,
              assets/policy-extras/shaping.toml
    RFC nnnn  www.rfc-editor.org
    observed  seen in public logs, written down by no vendor
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tocsin_schema.errors import Scope
from tocsin_workers.classification import google, microsoft, ses, standards
from tocsin_workers.classification.rules import Kind, Outcome, Rule, is_permanent, scope_of
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import BAD_SEQUENCE, START_INPUT

if TYPE_CHECKING:
    from tocsin_workers.smtp.replies import Reply

__all__ = ["RULES", "Kind", "Outcome", "Rule", "classify"]

RULES: tuple[Rule, ...] = (
    *microsoft.TEXT_RULES,
    *google.TEXT_RULES,
    *ses.TEXT_RULES,
    *standards.TEXT_RULES,
    *microsoft.ENHANCED_RULES,
    *google.ENHANCED_RULES,
    *standards.ENHANCED_RULES,
)
"""Every row, in the order in which they are tried."""

_BY_TEXT = tuple(rule for rule in RULES if rule.text is not None)

_ACCEPTED = Outcome(Kind.ACCEPTED, Scope.RECIPIENT, permanent=False, rule="accepted")


def classify(phase: Phase, reply: Reply) -> Outcome:
    """Tell what a reply in this phase means."""
    # Nothing but a 354 is a yes to DATA: a 250 there has accepted no message.
    if reply.code == START_INPUT if phase is Phase.DATA else reply.accepted:
        return _ACCEPTED
    return _refusal(phase, reply)


# A throttled mailbox or a refused batch brings the same reply many times over.
@lru_cache(maxsize=1024)
def _refusal(phase: Phase, reply: Reply) -> Outcome:
    # A 421 after the dot may be no answer to it, unless its words are: a code alone does not tell.
    rows = _BY_TEXT if reply.closing and phase is Phase.FINAL else RULES
    for rule in rows:
        if rule.fits(phase, reply):
            return rule.outcome(phase, reply)
    return _by_first_digit(phase, reply)


def _by_first_digit(phase: Phase, reply: Reply) -> Outcome:
    """Tell what is left to tell: a client has to cope with unknown codes (RFC 5321 section 4.3.2)."""
    if reply.closing and phase is Phase.FINAL:
        # It may be no answer to the dot at all, but a good-bye that crossed it.
        return Outcome(Kind.DOUBTFUL, Scope.MESSAGE, permanent=False, rule="closing after the dot")
    if reply.closing:
        return Outcome(Kind.TRANSIENT, Scope.SESSION, permanent=False, rule="closing")
    if reply.code == BAD_SEQUENCE:
        # We are out of step with the server; nobody is refused.
        return Outcome(Kind.TRANSIENT, Scope.SESSION, permanent=False, rule="bad sequence of commands")
    if not is_permanent(reply):
        return Outcome(Kind.TRANSIENT, scope_of(phase), permanent=False, rule="first digit")
    match phase:
        case Phase.AUTH:
            kind = Kind.NOT_AUTHENTICATED
        case Phase.MAIL:
            kind = Kind.SENDER_REFUSED
        case _:
            kind = Kind.REFUSED
    return Outcome(kind, scope_of(phase), permanent=True, rule="first digit")
