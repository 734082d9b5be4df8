"""`tocsin dead-letter`: what intake could not understand or had to refuse."""

import base64
import json
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from tocsin_console.commands.parameters import JsonFlag, ListLimit
from tocsin_console.output import (
    Cell,
    counted,
    examples,
    print_block,
    print_bytes,
    print_facts,
    print_json,
    print_table,
    say,
)
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.contract.part import Priority
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger import dead_letters
from tocsin_schema.ledger.dead_letters import DeadLetter, DeadLetterLine, DeadLetterState
from tocsin_schema.message_broker.publishing import IntakePublisher, open_publisher
from tocsin_schema.message_broker.topology import intake_queue

app = typer.Typer(help="Dead letters: parts of jobs that intake had to refuse.", no_args_is_help=True)

SHOWN_OCTETS = 4000
"""So much of a dead letter's bytes is shown to people; --raw gives them all."""


class ListedState(StrEnum):
    """Which dead letters are listed."""

    KEPT = "kept"
    REQUEUED = "requeued"
    DISCARDED = "discarded"
    ALL = "all"


LetterId = Annotated[int, typer.Argument(metavar="ID", min=1, help="The dead letter's id, as the list shows it.")]
LetterIds = Annotated[list[int], typer.Argument(metavar="ID…", min=1, help="Ids of dead letters.")]


@app.command("list", epilog=examples("tocsin dead-letter list", "tocsin dead-letter list --state all --json"))
def list_letters(
    state: Annotated[ListedState, typer.Option(help="Those that nobody has settled, or others.")] = ListedState.KEPT,
    job: Annotated[UUID | None, typer.Option(metavar="ID", help="Only those of this job.")] = None,
    limit: ListLimit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first."""
    wanted = None if state is ListedState.ALL else DeadLetterState(state.value)

    async def work(session: Session) -> list[DeadLetterLine]:
        return await dead_letters.read_dead_letters(session.connection, state=wanted, job_id=job, limit=limit)

    letters = in_session(work)
    if as_json:
        for letter in letters:
            print_json(_as_json(letter))
        return
    print_table(
        ("ID", "RECEIVED", "STATE", "CODE", "JOB", "BYTES", "REASON"),
        [(d.id, d.received_at, d.state, d.code, d.job_id, d.size, d.reason) for d in letters],
    )


@app.command("show", epilog=examples("tocsin dead-letter show 12", "tocsin dead-letter show 12 --raw > part.json"))
def show(
    letter_id: LetterId,
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes exactly as they came, and nothing else.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show why a dead letter was refused, and its bytes, made harmless."""
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other.", fix="Give one of them.")

    async def work(session: Session) -> DeadLetter:
        return await dead_letters.read_dead_letter(session.connection, letter_id)

    letter = in_session(work)
    if raw:
        print_bytes(letter.body)
        return
    if as_json:
        print_json({**_as_json(letter), "details": letter.details, "body_base64": _base64(letter.body)})
        return
    print_facts(_as_facts(letter))
    shown = letter.body[:SHOWN_OCTETS].decode("utf-8", "backslashreplace")
    heading = "Bytes" if letter.size <= SHOWN_OCTETS else f"Bytes (the first {SHOWN_OCTETS:,} of {letter.size:,})"
    print_block(heading, shown)


@app.command("requeue", epilog=examples("tocsin dead-letter requeue 12", "tocsin dead-letter requeue 12 13 14"))
def requeue(letter_ids: LetterIds) -> None:
    """Put dead letters back on the intake queue, byte for byte, once what was wrong is put right.

    Nothing is sent twice by this: intake knows a part that it took in before.
    """

    async def work(session: Session) -> None:
        broker_url = session.settings.broker_url
        with open_publisher(
            broker_url=None if broker_url is None else broker_url.get_secret_value(), database_url=session.url
        ) as publisher:
            for letter_id in letter_ids:
                await _requeue_one(session, publisher, letter_id)

    in_session(work)
    say(f"{counted(len(letter_ids), 'dead letter')} put back. One that is refused again is listed again.")


@app.command("discard", epilog=examples("tocsin dead-letter discard 12"))
def discard(letter_ids: LetterIds) -> None:
    """Give dead letters up. They are kept, and `dead-letter list --state discarded` shows them."""

    async def work(session: Session) -> None:
        for letter_id in letter_ids:
            letter = await dead_letters.lock_kept(session.connection, letter_id)
            await dead_letters.settle(session.connection, letter, DeadLetterState.DISCARDED)

    in_session(work)
    say(f"{counted(len(letter_ids), 'dead letter')} discarded.")


def priority_of(queue: str, body: bytes) -> Priority:
    """Say on which intake queue a part belongs: where it came from, else what it says of itself, else normal."""
    for priority in Priority:
        if queue == intake_queue(priority.value):
            return priority
    try:
        part: dict[str, object] = json.loads(body)
        return Priority(str(part["priority"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Priority.NORMAL


async def _requeue_one(session: Session, publisher: IntakePublisher, letter_id: int) -> None:
    """Publish one dead letter and mark it, so that it is never marked without the broker's confirm.

    The mark is written first and committed last. If intake refuses the part again before we commit, it waits for
    us, since the same part with the same fault may be kept only once; afterwards it keeps it as a new one.
    """
    letter = await dead_letters.lock_kept(session.connection, letter_id)
    await dead_letters.settle(session.connection, letter, DeadLetterState.REQUEUED)
    publisher.publish(letter.body, priority_of(letter.queue, letter.body).value)
    publisher.flush()
    await session.connection.commit()


def _as_json(letter: DeadLetterLine) -> dict[str, object]:
    return {
        "id": letter.id,
        "received_at": letter.received_at,
        "state": letter.state,
        "queue": letter.queue,
        "code": letter.code,
        "reason": letter.reason,
        "job": letter.job_id,
        "size": letter.size,
        "requeues": letter.requeues,
        "settled_at": letter.settled_at,
    }


def _as_facts(letter: DeadLetter) -> list[tuple[str, Cell]]:
    return [
        ("Dead letter", letter.id),
        ("Received", letter.received_at),
        ("Queue", letter.queue),
        ("State", letter.state),
        ("Settled", letter.settled_at),
        ("Code", letter.code),
        ("Reason", letter.reason),
        ("Job", letter.job_id),
        ("Details", json.dumps(letter.details)),
        ("Size", f"{letter.size:,} bytes"),
    ]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
