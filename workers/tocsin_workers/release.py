"""Which release of Tocsin runs here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def running_release() -> str:
    """Give its version; "unknown" where the code runs without being installed."""
    try:
        return version("tocsin")
    except PackageNotFoundError:
        return "unknown"
