"""The steps of a check and what came of each, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tocsin_workers.diagnosis.causes import Verdict


class Step(StrEnum):
    """The closed set of steps, in the order in which they are shown."""

    PROFILE = "profile"
    """Whether it is paused, or its mailbox rests."""
    NAME = "name"
    BUDGET = "budget"
    """One of the mailbox's connections."""
    TCP = "tcp"
    TLS = "tls"
    EHLO = "ehlo"
    TOKEN = "token"  # noqa: S105  # a step, not a token
    """What the profile signs in with: a token, or its password."""
    AUTH = "auth"
    MAIL_FROM = "mail_from"
    RSET = "rset"
    MESSAGE = "message"
    """The test message, where a person says to whom."""


class StepVerdict(StrEnum):
    """How a step went."""

    OK = "ok"
    WARNING = "warning"
    """It works, and something is worth a look."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not tried, and why stands beside it."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step. `cause` and `fix` are there where something is wrong."""

    step: Step
    verdict: StepVerdict
    detail: str
    cause: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What came of all steps of a profile's check, each once."""

    profile: str
    is_paused: bool
    steps: tuple[StepResult, ...]

    @property
    def is_ok(self) -> bool:
        """Whether nothing failed."""
        return all(result.verdict is not StepVerdict.FAILED for result in self.steps)

    @property
    def is_complete(self) -> bool:
        """Whether it went as far as to ask for the sender, logged in if need be, and nothing failed."""
        tried = {result.step for result in self.steps if result.verdict in (StepVerdict.OK, StepVerdict.WARNING)}
        return self.is_ok and Step.MAIL_FROM in tried


@dataclass(slots=True)
class Findings:
    """The results so far; of a step that is tried twice the last one counts."""

    _results: dict[Step, StepResult] = field(default_factory=dict[Step, StepResult])

    def ok(self, step: Step, detail: str) -> None:
        """Note that a step went well."""
        self._results[step] = StepResult(step, StepVerdict.OK, detail)

    def warn(self, step: Step, verdict: Verdict, detail: str = "") -> None:
        """Note that a step went well but for something; `detail` is the good news."""
        said = " ".join(filter(None, (detail, verdict.meaning)))
        self._results[step] = StepResult(step, StepVerdict.WARNING, said, verdict.cause.value, verdict.fix)

    def fail(self, step: Step, verdict: Verdict) -> None:
        """Note that a step failed, and why."""
        self._results[step] = StepResult(step, StepVerdict.FAILED, verdict.meaning, verdict.cause.value, verdict.fix)

    def skip(self, step: Step, why: str) -> None:
        """Note that a step was not tried."""
        self._results[step] = StepResult(step, StepVerdict.SKIPPED, why)

    def cause_of(self, step: Step) -> str | None:
        """Give what is wrong with a step, as far as is known yet."""
        result = self._results.get(step)
        return None if result is None else result.cause

    def next_step(self) -> Step:
        """Give the first step of which nothing is known: the one that is under way."""
        return next((step for step in Step if step not in self._results), Step.MESSAGE)

    def report(self, profile: str, *, is_paused: bool) -> CheckReport:
        """Give all steps in order; those of which nothing is known were not tried."""
        return CheckReport(profile, is_paused, tuple(self._results.get(step) or self._not_tried(step) for step in Step))

    def _not_tried(self, step: Step) -> StepResult:
        failed = [one for one in Step if one in self._results and self._results[one].verdict is StepVerdict.FAILED]
        steps = list(Step)
        # The first one that failed before it; with STARTTLS the first EHLO comes before TLS.
        before = [one for one in failed if steps.index(one) < steps.index(step)] or failed
        why = f"not tried: {before[0]} failed" if before else "not tried"
        return StepResult(step, StepVerdict.SKIPPED, why)
