"""What a supervisor knows of its children at one moment, as others may see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChildState:
    """One place in the supervisor. Times are of `time.monotonic`.

    `came_up` says that a process in this place ever gave a sign of life, `takes_work` that the one which runs has a
    ledger and a message broker and takes work. `silent_since` is when it last gave a sign, or was started; None where
    none runs. `not_started_since` says that the operating system refuses us a process for it.
    """

    is_running: bool
    came_up: bool
    takes_work: bool
    silent_since: float | None
    deaths_in_a_row: int = 0
    not_started_since: float | None = None


@dataclass(frozen=True, slots=True)
class FamilyState:
    """A supervisor and its children, as of `seen_at` (`time.monotonic`). `restarts` counts all deaths so far."""

    seen_at: float
    is_stopping: bool
    restarts: int
    children: tuple[ChildState, ...]
