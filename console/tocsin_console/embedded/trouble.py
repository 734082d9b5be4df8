"""Why the embedded Postgres did not start, in the words of its log."""

from __future__ import annotations

import re

_NO_SPACE = "No space left on device"
_SEVERE = re.compile(r"(?:FATAL|PANIC):\s+(?P<message>.+)")
_DETAIL = re.compile(r"DETAIL:\s+(?P<message>.+)")


def cause_of(text: str) -> str:
    """Pick the line that says why.

    That is the first that tells of a full disk, since what follows are only its consequences; else the last
    FATAL or PANIC with its detail; else the last error; else the last line.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if full := next((line for line in lines if _NO_SPACE in line), None):
        severe = _SEVERE.search(full)
        return severe["message"] if severe else full
    for position, line in reversed(list(enumerate(lines))):
        if severe := _SEVERE.search(line):
            following = lines[position + 1] if position + 1 < len(lines) else ""
            detail = _DETAIL.search(following)
            return severe["message"] + (f" ({detail['message'].rstrip('.')})" if detail else "")
    for line in reversed(lines):
        if "error: " in line or "could not" in line:
            return line
    return lines[-1] if lines else "it said nothing"


def is_passing(cause: str) -> bool:
    """Whether it goes away by itself: processes of a killed server are still ending and hold its memory."""
    return "is still in use" in cause


def fix_for(cause: str, log: str) -> str:
    """Say what a person can do about it."""
    if _NO_SPACE in cause:
        return "Free some space on that disk and try again."
    return f"The whole log is {log}."
