"""PromQL that many panels have in common."""

from __future__ import annotations

from typing import Final

OF_JOB: Final = 'job="$job"'
"""Matchers of what the installation tells that is looked at."""
OF_PROFILE: Final = f'{OF_JOB}, profile=~"$profile"'
"""And of the profiles among it that are looked at."""


def rate(counter: str, by: str, *, of: str = OF_JOB) -> str:
    """Give the rate of a counter over all processes, by labels."""
    return f"sum by ({by}) (rate({counter}{{{of}}}[$__rate_interval]))"


def p95(histogram: str, by: str) -> str:
    """Give what nineteen of twenty observations do not exceed, by a label."""
    return f"histogram_quantile(0.95, sum by ({by}, le) (rate({histogram}_bucket{{{OF_JOB}}}[$__rate_interval])))"
