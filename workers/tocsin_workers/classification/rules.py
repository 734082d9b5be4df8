"""The words of the classification: kinds, outcomes, and the form of a row in the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.errors import Scope
from tocsin_workers.smtp.phases import Phase

if TYPE_CHECKING:
    from tocsin_workers.smtp.replies import Reply


class Kind(StrEnum):
    """What came of a command."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """For good; the scope says whether it is the recipient, the message or the session that is refused."""
    TRANSIENT = "transient"
    """Not now; trying again later may help."""
    TOO_FAST = "too_fast"
    """More messages a minute than the mailbox may send."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    QUOTA = "quota"
    """The mailbox has used up its share of a day."""
    TENANT_QUOTA = "tenant_quota"
    """The whole organisation has."""
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    """These recipients have to go in another transaction (RFC 5321 section 4.5.3.1.10)."""
    NOT_AUTHENTICATED = "not_authenticated"
    """The credentials are refused, or may not be used like this."""
    SENDER_REFUSED = "sender_refused"
    """We may not send as this sender; with the scope `mailbox`, not at all."""
    DOUBTFUL = "doubtful"
    """The server went away while it had the message: nobody can tell."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reply means.

    `scope` is the narrowest thing to blame: session, mailbox, sender, message or recipient. `permanent` says
    that the same thing will be refused again until a person changes something. `dead_address` says that this
    very address was refused for good, at RCPT, because it does not exist or its mailbox is closed, so that it may
    be suppressed: never for a full mailbox, a policy, or what somebody else is to blame for. `per_second` says of a
    rate that the server counts it by the second; others count by the minute. `rule` names the row that decided.
    `meaning` and `advice` are words for the operator, where the row knows more than the reply says.
    """

    kind: Kind
    scope: Scope
    permanent: bool
    rule: str
    meaning: str | None = None
    advice: str | None = None
    dead_address: bool = False
    per_second: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Every given condition has to hold: `text` is searched for in the reply without its codes, `enhanced`
    matches the whole enhanced code, `codes` holds the reply code, `phases` the phase. `scope` None means: as
    the phase has it. `source` says where the row is written; the short names are explained in the package's
    docstring.
    """

    name: str
    kind: Kind
    source: str
    scope: Scope | None = None
    text: re.Pattern[str] | None = None
    enhanced: re.Pattern[str] | None = None
    codes: frozenset[int] | None = None
    phases: frozenset[Phase] | None = None
    meaning: str | None = None
    advice: str | None = None
    dead_address: bool = False
    per_second: bool = False

    def fits(self, phase: Phase, reply: Reply) -> bool:
        """Tell whether this row decides about the reply."""
        return (
            (self.phases is None or phase in self.phases)
            and (self.codes is None or reply.code in self.codes)
            and (self.enhanced is None or bool(reply.enhanced and self.enhanced.fullmatch(reply.enhanced)))
            and (self.text is None or self.text.search(reply.text) is not None)
        )

    def outcome(self, phase: Phase, reply: Reply) -> Outcome:
        """Make the outcome: a 4yz is never a refusal for good, whatever else the row says."""
        kind = self.kind
        if not is_permanent(reply) and kind in _FOR_GOOD:
            kind = Kind.TRANSIENT
        return Outcome(
            kind,
            self.scope or scope_of(phase),
            permanent=kind in _FOR_GOOD,
            rule=self.name,
            meaning=self.meaning,
            advice=self.advice,
            dead_address=self.dead_address and kind is Kind.REFUSED and phase is Phase.RCPT and not _is_policy(reply),
            per_second=self.per_second,
        )


_FOR_GOOD = frozenset({Kind.REFUSED, Kind.SENDER_REFUSED, Kind.NOT_AUTHENTICATED})


def is_permanent(reply: Reply) -> bool:
    """Tell whether the first digit says "for good": 5yz."""
    return reply.code // 100 == 5  # noqa: PLR2004  # RFC 5321 section 4.2.1


def _is_policy(reply: Reply) -> bool:
    """Tell whether the enhanced code says "security or policy" (RFC 3463 section 3.8), whatever the text says."""
    return reply.enhanced is not None and reply.enhanced.startswith("5.7.")


def scope_of(phase: Phase) -> Scope:
    """Give whom a refusal in this phase blames where it says nothing more."""
    match phase:
        case Phase.CONNECT | Phase.GREETING | Phase.EHLO | Phase.TLS | Phase.RSET | Phase.QUIT:
            return Scope.SESSION
        case Phase.AUTH:
            return Scope.MAILBOX
        case Phase.MAIL:
            return Scope.SENDER
        case Phase.RCPT:
            return Scope.RECIPIENT
        case Phase.DATA | Phase.BODY | Phase.FINAL:
            return Scope.MESSAGE
        case _:
            assert_never(phase)


def text(pattern: str) -> re.Pattern[str]:
    """Compile a text condition: searched for anywhere, in any case."""
    return re.compile(pattern, re.IGNORECASE)


def code(pattern: str) -> re.Pattern[str]:
    """Compile an enhanced-code condition: the whole code, dots escaped here."""
    return re.compile(pattern.replace(".", r"\."))


AN_ADDRESS = r"(?![\w.+-]*@)"
"""Ends a word in a text condition that shall not be found in an address (`<spam@x.org>: User unknown`)."""

SENDING = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.FINAL})
AFTER_RCPT = frozenset({Phase.DATA, Phase.BODY, Phase.FINAL})
AT_AUTH = frozenset({Phase.AUTH})
AT_MAIL = frozenset({Phase.MAIL})
AT_RCPT = frozenset({Phase.RCPT})
