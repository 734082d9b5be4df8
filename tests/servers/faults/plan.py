"""Which faults strike, in which order and how often: a seeded choice. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.servers.faults.kinds import Fault, Part, needs_rabbitmq, part_of
from tests.servers.faults.mail_events import MailPhase

if TYPE_CHECKING:
    from collections.abc import Sequence


class Form(StrEnum):
    """How much is broken."""

    SHORT = "short"
    """As many faults as fit into `SHORT_SECONDS`, and two at once at the end."""
    LONG = "long"
    """Every fault, several times each, and one in every part at once at the end."""


#: What a short form's rounds may take, as `SECONDS` has it, on one message broker.
SHORT_SECONDS = 19
#: About how long a round takes in its short form; leases, rests and waits for a second try mostly.
SECONDS = {
    Fault.WORKER_KILLED: 9,
    Fault.WORKER_FROZEN: 11,
    Fault.TREE_KILLED: 11,
    Fault.POSTGRES_STOPPED: 6,
    Fault.RABBITMQ_KILLED: 11,
    Fault.CONNECTIONS_CLOSED: 6,
    Fault.WAKE_UPS_PURGED: 6,
    Fault.WAKE_UPS_DELETED: 7,
    Fault.MEMORY_ALARM: 8,
    Fault.DISK_ALARM: 8,
    Fault.DROP_BEFORE_DOT: 13,
    Fault.DROP_AFTER_DOT: 13,
    Fault.TEMPORARY_REFUSALS: 13,
    Fault.PERMANENT_REFUSALS: 9,
    Fault.MAIL_SERVER_AWAY: 13,
    Fault.TOKENS_FAIL: 12,
    Fault.TOKENS_HANG: 24,
}
#: What the quickest round takes, so that there is always one before the last.
LEAST_SECONDS = min(SECONDS.values())
_ORDER = (Part.MAIL_SERVER, Part.TOKENS, Part.MESSAGE_BROKER, Part.WORKERS, Part.LEDGER)
_TIMES = {Form.SHORT: (1, 1), Form.LONG: (2, 4)}
_RECIPIENTS = {Form.SHORT: 240, Form.LONG: 500}


@dataclass(frozen=True, slots=True)
class Round:
    """One round: `faults` strike, in waves; before each wave jobs for about `recipients` are published."""

    number: int
    faults: tuple[Fault, ...]
    waves: int
    recipients: int
    phases: tuple[MailPhase, ...]
    """Where the mail server refuses, a wave each."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        return " + ".join(self.faults)


def rounds_of(seed: int, form: Form, *, has_rabbitmq: bool) -> list[Round]:
    """Plan the rounds: the same ones for the same seed."""
    choice = random.Random(f"{seed} {has_rabbitmq}")
    faults = [fault for fault in Fault if has_rabbitmq or not needs_rabbitmq(fault)]
    choice.shuffle(faults)
    match form:
        case Form.LONG:
            singles, together = faults, _one_a_part(faults, tuple(Part))
        case Form.SHORT:
            quick = [fault for fault in faults if SECONDS[fault] <= SHORT_SECONDS - LEAST_SECONDS]
            together = _one_a_part(quick, choice.sample(tuple(Part), 2))
            left = SHORT_SECONDS - max(SECONDS[fault] for fault in together)
            singles = _fitting([fault for fault in quick if fault not in together], left)
    rounds = [*((fault,) for fault in singles), together]
    return [_round(choice, number, struck, form) for number, struck in enumerate(rounds, start=1)]


def _round(choice: random.Random, number: int, faults: tuple[Fault, ...], form: Form) -> Round:
    phases = choice.sample(tuple(MailPhase), len(MailPhase))
    waves = choice.randint(*_TIMES[form])
    if form is Form.LONG and faults in ((Fault.TEMPORARY_REFUSALS,), (Fault.PERMANENT_REFUSALS,)):
        waves = len(phases)
    return Round(number, faults, waves, _RECIPIENTS[form], tuple(phases))


def _fitting(faults: Sequence[Fault], seconds: float) -> list[Fault]:
    """Take faults in their order as long as they fit."""
    taken: list[Fault] = []
    for fault in faults:
        if SECONDS[fault] <= seconds:
            taken.append(fault)
            seconds -= SECONDS[fault]
    return taken


def _one_a_part(faults: Sequence[Fault], parts: Sequence[Part]) -> tuple[Fault, ...]:
    """Take the first fault of each part that has one, in the order in which they strike.

    The mail server first, while there is mail for it; Postgres last, since without it nothing else goes on.
    """
    firsts = {part_of(fault): fault for fault in reversed(faults)}
    return tuple(firsts[part] for part in _ORDER if part in firsts and part in parts)
