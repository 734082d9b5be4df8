"""A window of messages on its way: what may begin, what is handed over, and what is left where it is broken off."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext
from hashlib import sha256
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from tests.builders import a_sender_profile
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.played_line import PlayedLine, session_on
from tests.unit.test_sender_settling import NOON, OCTETS, SIZE, due
from tocsin_schema.errors import RenderingError
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch
from tocsin_workers.sender import marking, marks, outgoing, reserving, slice, transmitting, windows  # noqa: A004  # the module's name
from tocsin_workers.sender.claiming import Claim
from tocsin_workers.sender.lease import WorkerLease, lease_clock
from tocsin_workers.sender.marks import Mark
from tocsin_workers.sender.outgoing import LeaseLostError, OutgoingWindow
from tocsin_workers.sender.preparing import PreparedMessage, UnrenderableRecipient
from tocsin_workers.sender.reacting import Park
from tocsin_workers.sender.retrying import RetrySchedule
from tocsin_workers.sender.screening import ScreenedBatch
from tocsin_workers.sender.traffic import Traffic
from tocsin_workers.sender.transmitting import Next, ReadyWindow
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.smtp.series import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tocsin_schema.ledger.recording import WantedMark
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.recording import MessageOutcome
    from tocsin_workers.sender.reserving import ReservedSlots
    from tocsin_workers.sender.session_pool import PooledSession

KEY = (7, 3)
LONG = OCTETS + b"a line of a long letter\r\n" * (2 * CHUNK // 25)


def batch(size: int = SIZE) -> ClaimedBatch:
    return ClaimedBatch(7, 3, 100, size, 5, bit_string(0, size))


def message(index: int = 0, *, octets: bytes = OCTETS, size: int = SIZE) -> PreparedMessage:
    return PreparedMessage(
        batch=batch(size),
        on_unknown="hold",
        recipients=(due(index),),
        envelope=Envelope("news@campus.example", (f"r{index}@x.org",)),
        octets=octets,
        digest=sha256(octets).digest(),
        subject="x",
        reply_to=None,
        visible_to=f"r{index}@x.org",
        message_id=f"<{index}@campus.example>",
        dated_at=NOON,
    )


def claim_of(messages: int, *, size: int = SIZE) -> Claim:
    return Claim([ScreenedBatch(batch(size), tuple(due(index) for index in range(messages)), None)], 0, {KEY: messages})


def a_mark(*, age: float = 0.0, ours: bool = True) -> Mark:
    return Mark(monotonic() - age, frozenset({KEY} if ours else ()))


class NotedRecorder:
    """Stands for a recorder that commits nothing, and gives the marks that it is told to give."""

    sending = staticmethod(nullcontext)
    awaited = staticmethod(nullcontext)

    def __init__(self) -> None:
        self.outcomes: list[MessageOutcome] = []
        self.wanted: list[int] = []
        """The masks that were wanted."""
        self.gives: Callable[[], Mark] = a_mark
        self.was_asked = asyncio.Event()
        self.is_quick = asyncio.Event()
        self.is_quick.set()

    def put(self, outcome: MessageOutcome) -> asyncio.Future[None]:
        self.outcomes.append(outcome)
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return committed

    async def mark(self, wanted: Sequence[WantedMark], *, ahead: bool = False) -> Mark:
        await asyncio.sleep(0)
        self.wanted.append(sum(one.mask for one in wanted))
        self.was_asked.set()
        await self.is_quick.wait()
        return self.gives()

    @property
    def states(self) -> list[list[str]]:
        """Give the states of the exceptions of each outcome; none where it was sent."""
        return [[row.state for row in outcome.exceptions] for outcome in self.outcomes]


class Scene:
    """A desk, and a session over a line that the test holds the other end of."""

    def __init__(self, *, pipelining: Pipelining = Pipelining.ENVELOPE, **limits: object) -> None:
        self.recorder = NotedRecorder()
        self.line = PlayedLine()
        self.session = session_on(self.line, pipelining=pipelining)
        self.lease = WorkerLease(uuid4(), 1e9)
        self.lease.renew(lease_clock())
        self.stopping = asyncio.Event()
        self.profile: SenderProfile = a_sender_profile(**limits)
        self.desk = cast(
            "SenderDesk",
            SimpleNamespace(
                lease=self.lease,
                recorder=self.recorder,
                schedule=RetrySchedule(),
                stopping=self.stopping,
                failures={},
                traffic=Traffic(),
                learn_cap=lambda *_: False,
                largest_transaction=lambda _: 50,
            ),
        )
        self.pooled = cast("PooledSession", SimpleNamespace(session=self.session))
        self.last: OutgoingWindow | None = None

    def window(
        self, *messages: PreparedMessage, mark: Mark | None = None, slots: object = None, claim: Claim | None = None
    ) -> ReadyWindow:
        self.last = OutgoingWindow(
            self.desk,
            self.profile,
            claim or claim_of(len(messages)),
            messages,
            mark=mark or a_mark(),
            slots=cast("ReservedSlots | None", slots),
        )
        return ReadyWindow(self.last, is_cut_short=False)

    async def send(self, *messages: PreparedMessage, **how: Any) -> Next:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await transmitting.send_window(self.desk, self.profile, self.pooled, self.window(*messages, **how))

    async def stopped_at(self, verb: str, *messages: PreparedMessage, **how: Any) -> None:
        """Stop the slice when the server has come to a verb and falls silent."""
        self.line.held.add(verb)
        sending = asyncio.create_task(self.send(*messages, **how))
        await self.line.reached[verb].wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not self.session.is_open


# Being stopped in the middle of a message


async def test_a_message_whose_body_was_written_is_in_doubt_when_the_worker_stops():
    scene = Scene()
    await scene.stopped_at("dot", message())
    assert scene.recorder.states == [["unknown"]]


async def test_a_message_in_doubt_is_counted_as_unknown_in_the_metrics_and_in_the_line_of_its_slice():
    def unknown(name: str) -> float:
        return REGISTRY.get_sample_value(name, {"profile": scene.profile.name, "outcome": "unknown"}) or 0.0

    scene, claim = Scene(), claim_of(1)
    messages, recipients = unknown("tocsin_messages_total"), unknown("tocsin_recipients_total")
    await scene.stopped_at("dot", message(), claim=claim)
    assert unknown("tocsin_messages_total") == messages + 1
    assert unknown("tocsin_recipients_total") == recipients + 1
    assert claim.tally.line()["unknown"] == 1


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_message_whose_body_was_not_begun_is_no_outcome_when_the_worker_stops(verb: str):
    scene = Scene()
    await scene.stopped_at(verb, message())
    assert scene.recorder.outcomes == []


async def test_a_long_body_without_its_dot_is_no_outcome_when_the_worker_stops():
    scene = Scene()
    scene.line.takes_slowly = True
    await scene.stopped_at("piece", message(octets=LONG))
    assert (scene.recorder.outcomes, scene.line.bodies) == ([], [])


async def test_of_two_messages_in_one_flight_the_one_with_its_dot_is_in_doubt_and_the_one_behind_is_not():
    scene = Scene(pipelining=Pipelining.FULL)
    await scene.stopped_at("dot", message(0), message(1))
    assert scene.line.seen["MAIL"] == 1, "the server is still at the dot"
    assert scene.session.counters.transactions == 2, "and the next envelope is on its way"
    ((row,),) = [outcome.exceptions for outcome in scene.recorder.outcomes]
    assert (row.ordinal, row.state) == (100, "unknown")


async def test_what_is_in_doubt_is_committed_before_its_batch_is_given_back():
    scene, claim = Scene(), claim_of(1)
    scene.line.held.add("dot")
    sending = asyncio.create_task(scene.send(message(), claim=claim))
    await scene.line.reached["dot"].wait()
    sending.cancel()
    await asyncio.wait([sending])
    assert [key for key, _ in claim.committed] == [KEY]
    assert claim.untouched == {KEY: 0}


async def test_a_defect_after_the_body_was_written_leaves_the_message_in_doubt_and_not_unsent(
    monkeypatch: pytest.MonkeyPatch,
):
    def judge(_transaction: object) -> None:
        raise AssertionError("a reply that nobody thought of")

    monkeypatch.setattr(outgoing, "judge", judge)
    scene = Scene()
    with pytest.raises(AssertionError):
        await scene.send(message(0), message(1))
    assert scene.recorder.states == [["unknown"]]
    assert len(scene.line.bodies) == 1
    assert not scene.session.is_open


async def test_a_worker_that_is_told_to_stop_begins_no_further_message_of_its_window():
    scene = Scene()
    scene.line.held.add("dot")
    sending = asyncio.create_task(scene.send(message(0), message(1)))
    await scene.line.reached["dot"].wait()
    scene.stopping.set()
    scene.line.let_go("dot")
    await sending
    assert (scene.line.seen["MAIL"], scene.recorder.states) == (1, [[]])


# The lease


async def test_no_body_is_begun_without_a_lease():
    scene = Scene()
    scene.lease.renewed_at = float("-inf")
    with pytest.raises(LeaseLostError):
        await scene.send(message())
    assert (scene.recorder.outcomes, scene.line.bodies) == ([], [])


async def test_no_body_is_begun_under_a_lease_that_was_lost_and_taken_again():
    scene = Scene()
    scene.lease.lose()
    scene.lease.renew(lease_clock())
    with pytest.raises(LeaseLostError):
        await scene.send(message())
    assert (scene.recorder.outcomes, scene.line.bodies) == ([], [])


async def test_a_long_body_is_not_ended_after_the_lease_was_lost():
    scene = Scene()
    scene.line.takes_slowly = True
    sending = asyncio.create_task(scene.send(message(octets=LONG)))
    await scene.line.reached["piece"].wait()
    scene.lease.lose()
    while not sending.done():
        scene.line.take_on()
        await asyncio.sleep(0)
    with pytest.raises(LeaseLostError):
        await sending
    assert (scene.recorder.outcomes, scene.line.bodies) == ([], [])


# Marks


async def test_a_message_begins_only_while_its_mark_is_fresh_and_still_granted(monkeypatch: pytest.MonkeyPatch):
    scene = Scene()
    # Granted at first and for the first message; then somebody has cancelled the job.
    scene.recorder.gives = lambda: a_mark(age=60.0, ours=len(scene.recorder.wanted) <= 1)
    monkeypatch.setattr(marking, "MARK_TRIES", 1)
    assert await scene.send(message(0), message(1), message(2), mark=a_mark(age=60.0)) is Next.GO_ON
    assert scene.line.seen["MAIL"] == len(scene.line.bodies) == 1
    assert scene.recorder.wanted[:2] == [0b111, 0b110]


async def test_mail_goes_out_however_long_the_ledger_takes_for_a_mark():
    scene = Scene()
    scene.recorder.gives = lambda: a_mark(age=60.0)
    assert await scene.send(message(0), message(1), mark=a_mark(age=60.0)) is Next.GO_ON
    assert scene.recorder.states == [[], []]


async def test_a_body_is_not_begun_that_was_stopped_while_the_server_let_it_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "MARK_SECONDS", 0.01)
    scene = Scene()
    scene.recorder.gives = lambda: a_mark(ours=False)
    scene.line.held.add("MAIL")
    sending = asyncio.create_task(scene.send(message(0), message(1)))
    await scene.recorder.was_asked.wait()
    scene.line.let_go("MAIL")
    assert await sending is Next.SESSION_ENDED
    assert (scene.recorder.outcomes, scene.line.bodies, scene.session.is_open) == ([], [], False)


async def test_whoever_has_an_outcome_is_not_marked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "MARK_SECONDS", 0.01)
    scene = Scene()
    scene.line.answers["RCPT"] = lambda line: "550 5.1.1 No such user" if "<r0@" in line else None
    scene.line.held.add("dot")
    sending = asyncio.create_task(scene.send(message(0), message(1), message(2)))
    await scene.line.reached["dot"].wait()
    assert scene.recorder.states == [["failed"]]
    scene.recorder.wanted.clear()
    scene.recorder.was_asked.clear()
    await scene.recorder.was_asked.wait()
    scene.line.let_go("dot")
    await sending
    assert set(scene.recorder.wanted) == {0b100}


async def test_a_mark_is_asked_for_no_more_once_all_bodies_are_begun(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "MARK_SECONDS", 0.01)
    scene = Scene()
    scene.line.held.add("dot")
    sending = asyncio.create_task(scene.send(message()))
    await scene.line.reached["dot"].wait()
    await asyncio.sleep(0.05)  # five times as long as a mark is fresh: there is nothing else to wait for
    assert scene.recorder.wanted == []
    scene.line.let_go("dot")
    await sending


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose recipients were counted of the 24 hours and are not any more."""
    given: list[str] = []

    async def give_back(_desk: object, _profile: object, untried: Sequence[PreparedMessage], *, rank: int = 1) -> None:
        assert rank == 1
        given.extend(one.message_id for one in untried)

    monkeypatch.setattr(reserving, "give_back_recipients", give_back)
    return given


async def test_who_was_counted_and_not_tried_is_counted_no_more(given_back: list[str]):
    scene = Scene()
    scene.line.answers["dot"] = "421 4.3.2 Going away"
    await scene.send(message(0), message(1), message(2))
    assert given_back == ["<1@campus.example>", "<2@campus.example>"]


async def test_who_was_counted_and_stopped_before_their_turn_is_counted_no_more(
    given_back: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(marking, "MARK_TRIES", 1)
    scene = Scene()
    scene.recorder.gives = lambda: a_mark(ours=False)
    await scene.send(message(0), message(1), mark=a_mark(age=60.0))
    assert sorted(given_back) == ["<0@campus.example>", "<1@campus.example>"]


# Time slots


class Slots:
    """Stands for reserved time slots: one in every `spacing` seconds from now on, or lapsed from some place on."""

    def __init__(self, *, spacing: float = 0.0, lapsed_from: int = 1000) -> None:
        self._from = monotonic()
        self._spacing = spacing
        self._lapsed_from = lapsed_from

    def due_at(self, place: int) -> float:
        return self._from + place * self._spacing

    def is_lapsed(self, place: int, _now: float) -> bool:
        return place >= self._lapsed_from


async def test_no_message_begins_before_its_time_slot():
    scene, slots = Scene(), Slots(spacing=0.02)
    begun: list[float] = []

    def noted(_line: str) -> None:
        begun.append(monotonic())

    scene.line.answers["MAIL"] = noted
    await scene.send(message(0), message(1), message(2), slots=slots)
    assert len(scene.line.bodies) == len(begun) == 3
    assert [at >= slots.due_at(place) for place, at in enumerate(begun)] == [True] * 3


async def test_a_message_that_has_missed_its_time_slot_does_not_begin(given_back: list[str]):
    scene = Scene()
    await scene.send(message(0), message(1), message(2), slots=Slots(lapsed_from=1))
    assert scene.line.seen["MAIL"] == 1
    assert given_back == ["<1@campus.example>", "<2@campus.example>"]


# The end of a session


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked for a mailbox or a profile."""
    reactions: list[object] = []

    async def carry_out(_desk: object, _profile: object, reaction: object, **_: object) -> None:
        reactions.append(reaction)

    monkeypatch.setattr(transmitting, "carry_out", carry_out)
    return reactions


async def test_a_server_that_hangs_up_before_it_has_taken_anything_is_left_alone_for_a_while(
    carried_out: list[object],
):
    scene = Scene()
    scene.line.hang_up()
    assert await scene.send(message()) is Next.MAILBOX_FULL
    assert [type(one) for one in carried_out] == [Park]


async def test_a_server_that_has_taken_a_message_may_hang_up_before_the_next_one(carried_out: list[object]):
    scene = Scene()
    assert await scene.send(message(0)) is Next.GO_ON
    scene.line.hang_up()
    assert await scene.send(message(1)) is Next.SESSION_ENDED
    assert carried_out == []


@pytest.mark.parametrize("pipelining", list(Pipelining))
async def test_nothing_more_begins_after_a_reply_that_concerns_the_mailbox(
    carried_out: list[object], pipelining: Pipelining
):
    scene = Scene(pipelining=pipelining)
    scene.line.answers["dot"] = "450 4.7.0 Rate limit exceeded"
    assert await scene.send(*map(message, range(4))) is Next.MAILBOX_FULL
    # With a body and the next envelope in one flight, that one is out already.
    assert scene.line.seen["MAIL"] == (2 if pipelining is Pipelining.FULL else 1)
    assert len(carried_out) == 1


# Making ready


def unrenderable(index: int) -> UnrenderableRecipient:
    return UnrenderableRecipient(batch(), due(index), RenderingError("There is no such tag."))


async def test_what_cannot_be_made_is_recorded_as_failed_and_the_others_are_marked():
    scene, claim = Scene(), claim_of(3)
    ready = await transmitting.make_ready(scene.desk, scene.profile, claim, [message(0), unrenderable(1), message(2)])
    assert isinstance(ready, ReadyWindow)
    assert [one.message_id for one in ready.outgoing.unbegun] == ["<0@campus.example>", "<2@campus.example>"]
    assert (scene.recorder.states, scene.recorder.wanted) == ([["failed"]], [0b101])
    assert claim.untouched == {KEY: 2}


async def test_of_a_window_of_which_nothing_can_be_made_nothing_is_marked():
    scene = Scene()
    assert await transmitting.make_ready(scene.desk, scene.profile, claim_of(1), [unrenderable(0)]) is None
    assert (scene.recorder.states, scene.recorder.wanted) == ([["failed"]], [])


async def test_who_is_not_marked_is_not_sent_to_and_not_counted(monkeypatch: pytest.MonkeyPatch):
    counted: list[list[PreparedMessage]] = []

    async def reserve(
        _desk: object, _profile: object, messages: list[PreparedMessage], *, rank: int = 1
    ) -> list[PreparedMessage]:
        assert rank == 1
        counted.append(messages)
        return messages

    monkeypatch.setattr(reserving, "reserve_recipients", reserve)
    scene = Scene()
    scene.recorder.gives = lambda: a_mark(ours=False)
    ready = await transmitting.make_ready(scene.desk, scene.profile, claim_of(1), [message()])
    assert isinstance(ready, ReadyWindow)
    assert (ready.outgoing.unbegun, counted) == ([], [[]])


# Window by window


@pytest.fixture
def looked_ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Send a claim of 100 messages over a scene's session."""
    size = 100

    async def no_jobs(*_: object) -> dict[int, object]:
        return {}

    monkeypatch.setattr(slice, "_messages_of_jobs", no_jobs)
    monkeypatch.setattr(slice, "_messages", lambda *_, **__: (message(index, size=size) for index in range(size)))

    async def reserve_time(*_: object) -> Slots:
        return Slots()

    monkeypatch.setattr(reserving, "reserve_time", reserve_time)
    return lambda scene: slice._send_claim(
        scene.desk, scene.profile, scene.pooled, claim_of(size, size=size), monotonic() + 60
    )


@pytest.mark.parametrize(("limits", "marked"), [({}, windows.WINDOW), ({"messages_per_minute": 1200.0}, 10)])
async def test_no_more_than_a_window_is_marked_and_not_sent(
    looked_ahead: Callable[..., Any], limits: dict[str, Any], marked: int
):
    scene = Scene(**limits)
    scene.line.held.add("dot")
    sending = asyncio.create_task(looked_ahead(scene))
    await scene.line.reached["dot"].wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert sum(mask.bit_count() for mask in scene.recorder.wanted) == marked
    scene.line.let_go("dot")
    assert await sending is Next.GO_ON
    assert len(scene.line.bodies) == len(scene.recorder.outcomes) == 100
    assert Counter(mask.bit_count() for mask in scene.recorder.wanted) == {10: 10}


async def test_a_claim_that_is_broken_off_leaves_nobody_who_waits_for_a_mark(looked_ahead: Callable[..., Any]):
    scene = Scene()

    def hang_up(_line: str) -> None:
        scene.recorder.is_quick.clear()
        scene.line.hang_up()

    scene.line.answers["dot"] = hang_up
    assert await looked_ahead(scene) is Next.SESSION_ENDED
    assert len(scene.recorder.wanted) == 2, "the next window was being made ready"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("limits", "sent"), [({}, 0), ({"messages_per_minute": 1200.0}, 10)])
async def test_a_claim_gives_way_to_mail_of_a_better_rank_but_uses_the_slots_that_it_has(
    looked_ahead: Callable[..., Any], limits: dict[str, Any], sent: int
):
    scene = Scene(**limits)
    scene.recorder.gives = lambda: Mark(monotonic(), frozenset({KEY}), is_outranked=True)
    assert await looked_ahead(scene) is Next.CLAIM_ANEW
    assert len(scene.line.bodies) == sent
