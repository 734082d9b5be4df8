"""Plays by chance: a seed gives a job and the moves of its play; and the shortest play that still fails.

Hypothesis chooses the seeds and no more: from one long list of moves it makes many that are nearly the same, and takes
minutes to shorten one that fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

from tests.servers.gates import Fate, Place
from tests.servers.played_mail import BUT_TAKEN, Script
from tests.servers.played_scene import JobPlan
from tests.servers.played_worker import Pace
from tocsin_schema.contract.part import Mode, OnUnknown, Priority
from tocsin_schema.ledger.recipient_controls import Settlement
from tocsin_workers.smtp.pipelining import Pipelining

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.played_job import Move

#: What a server says at each step: mostly yes, or nobody would come to the dot.
_AT_MAIL_OR_DATA: Final = (*["ok"] * 16, "try later", "too fast", "going away", "cut", "silence")
_AT_RCPT: Final = (
    *["ok"] * 6,
    "user unknown",
    "user unknown",
    "greylisted",
    "too many recipients",
    "going away",
    "cut",
)
_AT_THE_DOT: Final = (
    *["ok"] * 6,
    *("try later", "user unknown", "mailbox full", "spam", "too many recipients", "cut", "going away"),
    *(f"cut{BUT_TAKEN}", f"silence{BUT_TAKEN}", f"going away{BUT_TAKEN}"),
)
_PLACES: Final = (*Place, Place.BODY, Place.REPLY, Place.DOT, None)


@dataclass(frozen=True, slots=True)
class Play:
    """A job and what befalls it."""

    plan: JobPlan
    moves: tuple[Move, ...]


def play_of(seed: int, *, moves: int) -> Play:
    """Give the play of a seed. Jobs are cancelled towards the end if at all, as not much happens after it."""
    chance = Random(seed)
    names = chance.choices(list(_MOVES), [weight for weight, _ in _MOVES.values()], k=moves)
    if chance.random() < _CANCELLED:
        names[chance.randrange(moves // 2, moves)] = "cancel"
    return Play(_plan(chance), tuple((name, *_arguments(name, chance)) for name in names))


def shortened(play: Play, fails: Callable[[Play], bool]) -> Play:
    """Leave moves out, many at a time and then fewer, for as long as the play fails without them."""
    size = len(play.moves) // 2
    while size:
        for start in range(len(play.moves) - size, -1, -size):
            shorter = replace(play, moves=play.moves[:start] + play.moves[start + size :])
            if fails(shorter):
                play = shorter
        size //= 2
    return play


_CANCELLED: Final = 0.2


def _plan(chance: Random) -> JobPlan:
    return JobPlan(
        mode=chance.choice(list(Mode)),
        on_unknown=chance.choice(list(OnUnknown)),
        priority=chance.choice([Priority.NORMAL, Priority.URGENT]),
        parts=chance.choice([(20,), (8,), (12, 9), (5, 4, 12)]),
        batch_size=chance.choice([2, 3, 4]),
        minutes=chance.choice([None, None, 30]),
        has_malformed=chance.random() < 0.3,
        first_to_come=chance.choice([1, 1, 2]),
        holds_back=chance.random() < 0.3,
        pipelining=chance.choice(list(Pipelining)),
    )


def _script(chance: Random) -> Script:
    return Script(
        mail=chance.choice(_AT_MAIL_OR_DATA),
        rcpt=(chance.choice(_AT_RCPT), chance.choice(_AT_RCPT)),
        data=chance.choice(_AT_MAIL_OR_DATA),
        final=chance.choice(_AT_THE_DOT),
    )


def _arguments(name: str, chance: Random) -> Move:
    _, arguments = _MOVES[name]
    return arguments(chance)


def _somebody(chance: Random) -> Move:
    return (chance.randrange(2),)


def _somebody_somewhere(chance: Random) -> Move:
    return (chance.randrange(2), chance.choice(_PLACES))


def _nothing(_chance: Random) -> Move:
    return ()


#: How often a move is chosen, and with what.
_MOVES: Final[dict[str, tuple[int, Callable[[Random], Move]]]] = {
    "go_on": (
        16,
        lambda chance: (
            chance.randrange(2),
            chance.randrange(2),
            chance.randint(1, 12),
            [_script(chance) for _ in range(chance.randrange(3))],
        ),
    ),
    "begin_slice": (2, _somebody),
    "pass_time": (5, lambda chance: (chance.choice([1, 20, 45, 45, 200, 600, 600, 4000]),)),
    "sweep": (3, _nothing),
    "take_a_part_in": (2, lambda chance: (chance.randint(1, 3),)),
    "kill": (3, _somebody_somewhere),
    "stop": (1, _somebody_somewhere),
    "freeze": (1, _somebody_somewhere),
    "freeze_past_the_lease": (2, _somebody_somewhere),
    "overtake": (2, lambda chance: (chance.randrange(2), [_script(chance)], chance.choice(_PLACES))),
    "thaw": (4, _somebody),
    "beat": (1, _somebody),
    "trouble": (
        4,
        lambda chance: (chance.randrange(2), chance.choice([Fate.AWAY, Fate.REPLY_LOST]), chance.randrange(8)),
    ),
    "change_pace": (2, lambda chance: (chance.randrange(2), chance.choice(list(Pace)))),
    "record": (2, _somebody),
    "lose_wake_ups": (1, _nothing),
    "pause_or_resume": (1, _nothing),
    "retry_failed": (1, lambda chance: (chance.choice([None, 10]),)),
    "settle": (2, lambda chance: (chance.choice(list(Settlement)),)),
    "cancel": (0, _nothing),
}
