"""What the mail sink is told to answer, to whom and how often."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECIPIENT_ACCEPTED: Final = "250 2.1.5 Recipient OK"
DROP: Final = ""
"""In place of a reply: the connection breaks. After the dot it breaks once the message is taken."""


class Step(StrEnum):
    """Where in a session a planned reply is given; recipients have their own `RecipientScript`."""

    AUTH = "AUTH"
    MAIL = "MAIL"
    DATA = "DATA"
    DOT = "the dot"


class AuthFailure(StrEnum):
    """In which provider's way a token is refused."""

    MICROSOFT = "microsoft"
    """`535 5.7.3` at once."""
    GOOGLE = "google"
    """A `334` with JSON that says why, an empty line from the client, and then `535 5.7.8`."""


class RecipientScript:
    """A table from an address, or from a local part with its `@`, to the replies for successive tries.

    The last reply stays: `["451 4.7.1 Greylisted, try again", "250 2.1.5 OK"]` refuses once and then accepts.
    Whoever is not in the table is accepted. The domain is compared without regard to case.
    """

    def __init__(self, replies: Mapping[str, Sequence[str]] | None = None) -> None:
        self._replies = {_key(address): tuple(answers) for address, answers in (replies or {}).items()}
        self._tries: Counter[str] = Counter()

    def reply_to(self, address: str) -> str:
        """Count a try for this recipient and return the reply to it."""
        key = _key(address)
        answers = self._replies.get(key) or self._replies.get(key[: key.rfind("@") + 1])
        if not answers:
            return RECIPIENT_ACCEPTED
        tries = self._tries[key]
        self._tries[key] += 1
        return answers[min(tries, len(answers) - 1)]


class StepScript:
    """Replies that the next sessions or messages get instead of the usual one, each of them once."""

    def __init__(self) -> None:
        self._planned: defaultdict[Step, deque[str]] = defaultdict(deque)

    def plan(self, step: Step, *replies: str) -> None:
        """Give these replies, or `DROP`, to the next ones that reach the step; a 421 also hangs up."""
        self._planned[step].extend(replies)

    def take(self, step: Step) -> str | None:
        """Take the next planned reply, if there is one."""
        planned = self._planned[step]
        return planned.popleft() if planned else None


def _key(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"
