"""A server that a test needs: there, or not and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import pytest

Found = TypeVar("Found")


@dataclass(frozen=True)
class Unavailable:
    """There is no such server, and why; one line that says what to do."""

    reason: str


def or_skip(found: Found | Unavailable) -> Found:
    """Give what was found; else skip the test, or fail it where CI must not skip."""
    if isinstance(found, Unavailable):
        if os.environ.get("CI") == "true":
            pytest.fail(f"{found.reason}; CI must not skip")
        pytest.skip(found.reason)
    return found
