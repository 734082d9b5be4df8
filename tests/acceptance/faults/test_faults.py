"""The fault suite: jobs under load while everything around them breaks, and an account of every recipient.

What holds, the table, and how to run a seed again: docs/faults.md.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING

import pytest

from tests.servers.availability import or_skip
from tests.servers.faults.campus import Campus
from tests.servers.faults.plan import Form, rounds_of
from tests.servers.faults.rounds import RoundRun
from tests.servers.faults.table import Line, render, write_table
from tests.servers.rabbitmq import RabbitmqNode

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_VARIABLE = "TOCSIN_TEST_LONG"
"""Set by `make faults`: every fault, several times."""
SEED_VARIABLE = "TOCSIN_FAULTS_SEED"
TABLE_VARIABLE = "TOCSIN_FAULTS_TABLE"
"""A page into which the long form writes its tables, between their markers."""


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get(SEED_VARIABLE) or SystemRandom().randrange(10**9))


@pytest.fixture(params=["rabbitmq", "postgres"])
def campus(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> Iterator[Campus]:
    """An installation with a Postgres, and where it is on RabbitMQ a node, that nobody else uses."""
    node = or_skip(RabbitmqNode.obtain_own()) if request.param == "rabbitmq" else None
    try:
        campus = Campus(tmp_path, node, seed=seed)
        try:
            campus.begin()
            yield campus
        finally:
            campus.destroy()
    finally:
        if node is not None:
            node.stop()


def test_nothing_is_lost_and_duplicates_are_bounded_whatever_breaks(campus: Campus, seed: int) -> None:
    form = Form.LONG if os.environ.get(LONG_VARIABLE) else Form.SHORT
    name = "rabbitmq" if campus.node is not None else "postgres"
    tell(f"\n{SEED_VARIABLE}={seed}, {form} form, message broker {name}")
    lines: list[Line] = []
    problems: list[str] = []
    for planned in rounds_of(seed, form, has_rabbitmq=campus.node is not None):
        started = time.monotonic()
        run = RoundRun(campus, planned, Random(f"{seed} {name} {planned.number}"))
        lines.append(run.run())
        tell(f"{planned.number}. {planned.name}: {time.monotonic() - started:.1f} s")
        problems += [f"{planned.name}: {problem}" for problem in run.problems]
        if run.hangs:
            break
    table = render(lines)
    tell(table)
    page = os.environ.get(TABLE_VARIABLE)
    if page and form is Form.LONG and not problems:
        write_table(Path(page), name, table)
    assert not problems, f"{SEED_VARIABLE}={seed}\n" + "\n".join(problems)


def tell(line: str) -> None:
    """Show how far it is, where pytest shows it: with -s, and after a failure."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
