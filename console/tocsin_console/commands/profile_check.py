"""`tocsin profile check`: a sending profile tried step by step. `profile` registers it."""

import logging
import sys
from dataclasses import dataclass
from textwrap import wrap
from typing import Annotated, assert_never

import typer
from rich.console import Console
from rich.text import Text

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import counted, examples, harmless_lines, print_json, say
from tocsin_console.reading.session import Ledger, Session, open_ledger, run_to_end
from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.errors import AddressError, SealError, UsageError
from tocsin_schema.ledger import oauth_profiles, sending, sending_profiles
from tocsin_schema.ledger.connection import AWAY, describe, open_pool
from tocsin_schema.ledger.oauth_profiles import OAuthProfile
from tocsin_schema.ledger.sending import SenderProfile
from tocsin_schema.ledger.sending_halt import read_halt
from tocsin_schema.sealing import Sealer
from tocsin_workers.checking.checker import CheckDesk, check_profile
from tocsin_workers.checking.steps import CheckReport, Step, StepResult, StepVerdict

EPILOG = examples(
    "tocsin profile check news", "tocsin profile check news --to me@example.org", "tocsin profile check news --json"
)

_FAILED = 1
#: Columns beside the steps: on a terminal that is narrower still, lines run on.
_NARROWEST = 40
#: One for the token source, one for the budget.
_POOL_SIZE = 2

Name = Annotated[str, typer.Argument(metavar="NAME", help="The sending profile's name.")]
To = Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Also send a test message to this address.")]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is checked, as the ledger has it."""

    profile: SenderProfile
    oauth_profile: OAuthProfile | None
    sealer: Sealer | SealError
    is_halted: bool
    """Whether all sending is."""


def check(name: Name, to: To = None, as_json: JsonFlag = False) -> None:
    """Try a sending profile step by step, and say of every failure what causes it and how to mend it.

    It looks the server up, connects, checks the certificate, gets a token, logs in and asks for the sender; all
    within the mailbox's limits. No mail is sent unless --to says to whom. A paused profile is checked too, and
    stays paused. It fails too where the test message could not be sent.
    """
    recipient = None if to is None else _recipient(to)
    # Its log lines say what the steps say; --debug shows them all the same.
    logging.getLogger("tocsin_workers").addHandler(logging.NullHandler())
    with open_ledger() as ledger:
        subject = ledger.visit(lambda session: _read(session, name))
        report = run_to_end(_check(ledger, subject, recipient))
    if as_json:
        print_json({**as_json_object(report), "halted": subject.is_halted})
    else:
        _print_checklist(report)
    is_sent = recipient is None or was_sent(report)
    say(summary(report, is_sent=is_sent))
    if subject.is_halted:
        say("All sending is halted: no mail goes out until somebody resumes it. `tocsin status` says who halted it.")
    if not (report.is_ok and is_sent):
        raise typer.Exit(_FAILED)


def as_json_object(report: CheckReport) -> dict[str, object]:
    """Give the whole report as one object."""
    return {
        "profile": report.profile,
        "ok": report.is_ok,
        "steps": [
            {
                "step": result.step,
                "verdict": result.verdict,
                "detail": result.detail,
                "cause": result.cause,
                "fix": result.fix,
            }
            for result in report.steps
        ],
    }


async def _read(session: Session, name: str) -> _Subject:
    found = await sending_profiles.read_profile(session.connection, name)
    profile = await sending.read_sender_profile(session.connection, found.id)
    # Read in the same transaction.
    assert profile is not None
    oauth_profile = None
    if profile.oauth_profile_id is not None:
        oauth_profile = await oauth_profiles.get_by_id(session.connection, profile.oauth_profile_id)
    is_halted = await read_halt(session.connection) is not None
    try:
        return _Subject(profile, oauth_profile, await session.sealer(), is_halted)
    except SealError as error:
        # A step of its own: the rest can be checked without.
        return _Subject(profile, oauth_profile, error, is_halted)


async def _check(ledger: Ledger, subject: _Subject, recipient: Address | None) -> CheckReport:
    try:
        async with open_pool(ledger.url, size=_POOL_SIZE) as pool:
            desk = CheckDesk(pool, subject.sealer)
            return await check_profile(desk, subject.profile, subject.oauth_profile, to=recipient)
    except AWAY as error:
        raise describe(error, ledger.url) from error


def _recipient(text: str) -> Address:
    try:
        return parse_address(text)
    except AddressError as error:
        raise UsageError(f"--to: {error.problem}", fix=error.fix) from None


def _print_checklist(report: CheckReport) -> None:
    """Print a step a line, what it says of a failure below it; on a terminal in colours, and not wider than that."""
    is_terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True, force_terminal=is_terminal)
    step_width = max(len(result.step) for result in report.steps) + 2
    verdict_width = max(len(verdict) for verdict in StepVerdict) + 2
    indent = step_width + verdict_width
    width = max(console.width - indent, _NARROWEST) if is_terminal else None
    for result in report.steps:
        line = Text(f"{result.step.replace('_', ' '):<{step_width}}")
        line.append(f"{result.verdict:<{verdict_width}}", style=_style(result.verdict))
        line.append(f"\n{' ' * indent}".join(lines_beside(result, width=width)))
        console.print(line)


def lines_beside(result: StepResult, *, width: int | None) -> list[str]:
    """Give what stands beside a step: what it says, the cause and the fix, hanging; wrapped where a width is given."""
    lines = _hanging("", result.detail, width)
    if result.cause is not None:
        lines += _hanging("cause: ", result.cause, width)
    if result.fix:
        lines += _hanging("fix:   ", result.fix, width)
    return lines


def _hanging(label: str, text: str, width: int | None) -> list[str]:
    lines = harmless_lines(text).split("\n")
    if width is not None:
        room = width - len(label)
        # Commands and addresses stay in one piece, to be copied.
        lines = [
            part for line in lines for part in wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
        ]
    return [f"{label if number == 0 else ' ' * len(label)}{line}" for number, line in enumerate(lines)]


def _style(verdict: StepVerdict) -> str:
    match verdict:
        case StepVerdict.OK:
            return "green"
        case StepVerdict.WARNING:
            return "yellow"
        case StepVerdict.FAILED:
            return "bold red"
        case StepVerdict.SKIPPED:
            return "dim"
        case _:
            assert_never(verdict)


def was_sent(report: CheckReport) -> bool:
    """Whether a server took the test message."""
    return any(result.step is Step.MESSAGE and result.verdict is StepVerdict.OK for result in report.steps)


def summary(report: CheckReport, *, is_sent: bool = True) -> str:
    """Say in a sentence what came of it; `is_sent` is off where a test message was wished for and not sent."""
    failed = sum(result.verdict is StepVerdict.FAILED for result in report.steps)
    if failed:
        return f"Sending profile {report.profile!r} does not work: {counted(failed, 'step')} failed."
    if not is_sent:
        return "Nothing failed, but the test message was not sent: its step says why."
    if not report.is_complete:
        return f"Nothing failed, but not every step of sending profile {report.profile!r} could be tried."
    if report.is_paused:
        return (
            f"Sending profile {report.profile!r} works, but it is paused; "
            f"let its mail go on with `tocsin profile resume {report.profile}`."
        )
    return f"Sending profile {report.profile!r} works."
