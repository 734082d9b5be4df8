"""A large job takes no more memory than a small one; `bench/large_job.py` is the same with a million recipients."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from bench.large_job import prepared, run_large_job

if TYPE_CHECKING:
    from pathlib import Path

RECIPIENTS = 30_000
MOST_MEBIBYTES = 200
#: What a process may take more towards the end of a job than before its middle: garbage that waits to be collected.
GROWTH_MEBIBYTES = 15


def test_a_large_job_passes_in_flat_memory_and_shows_its_progress(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    installation = prepared(tmp_path, database_url, broker_url)
    account = run_large_job(installation, RECIPIENTS, every_seconds=0.1, hold_at=RECIPIENTS // 2)
    assert account.received == RECIPIENTS
    assert account.producer_peak < MOST_MEBIBYTES
    assert account.worker_peak() < MOST_MEBIBYTES
    begun = account.worker_peak(to_share=0.5)
    assert account.worker_peak(from_share=0.5) < begun + GROWTH_MEBIBYTES
    sent = [sample.sent for sample in account.samples]
    assert all(earlier <= later for earlier, later in pairwise(sent))
    assert any(0 < count < RECIPIENTS for count in sent)
    assert sent[-1] == RECIPIENTS
