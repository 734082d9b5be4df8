"""How the mail server behaves, and what it does at a step because of that. Pure but for the dice."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec

from tests.servers.faults.mail_events import MailPhase

if TYPE_CHECKING:
    from random import Random


class Kindly(msgspec.Struct, frozen=True, tag=True):
    """It takes everything."""


class Refusing(msgspec.Struct, frozen=True, tag=True):
    """It refuses at one phase, so often (0 to 1)."""

    phase: MailPhase
    for_good: bool
    """5yz rather than 4yz."""
    probability: float


class DroppingBeforeDot(msgspec.Struct, frozen=True, tag=True):
    """It breaks the connection after its 354, or in the middle of the body."""

    probability: float


class DroppingAfterDot(msgspec.Struct, frozen=True, tag=True):
    """It breaks the connection after the dot without a reply; half of these messages it takes."""

    probability: float


Mood: TypeAlias = Kindly | Refusing | DroppingBeforeDot | DroppingAfterDot


class Act(StrEnum):
    """What is done at a step besides the usual."""

    GO_ON = "go on"
    REFUSE = "refuse"
    DROP = "drop"
    DROP_ACCEPTED = "take it and drop"


class Moods:
    """The mood in force; counts how often it has shown."""

    def __init__(self, choice: Random) -> None:
        self._choice = choice
        self._mood: Mood = Kindly()
        self.strikes = 0

    def change(self, mood: Mood) -> None:
        """Be in another mood from now on, and count anew."""
        self._mood = mood
        self.strikes = 0

    def at(self, phase: MailPhase) -> Act:
        """Say what to do with a client that is at this phase."""
        match self._mood:
            case Kindly():
                return Act.GO_ON
            case Refusing(at, _, probability):
                return self._maybe(Act.REFUSE, probability) if phase is at else Act.GO_ON
            case DroppingBeforeDot(probability):
                return self._maybe(Act.DROP, probability) if phase is MailPhase.DATA else Act.GO_ON
            case DroppingAfterDot(probability):
                act = self._choice.choice((Act.DROP, Act.DROP_ACCEPTED))
                return self._maybe(act, probability) if phase is MailPhase.DOT else Act.GO_ON
            case _ as never:
                assert_never(never)

    def refusal(self) -> tuple[int, str]:
        """Give code and enhanced code of a refusal: nothing that says anything of an address, and at times a 421."""
        match self._mood:
            case Refusing(_, for_good) if for_good:
                return 554, "5.7.1"
            case _:
                return (421, "4.7.1") if self._choice.random() < _CLOSING_SHARE else (451, "4.7.1")

    def _maybe(self, act: Act, probability: float) -> Act:
        if self._choice.random() >= probability:
            return Act.GO_ON
        self.strikes += 1
        return act


_CLOSING_SHARE = 0.2
