"""What unit tests share: a run, records as a cluster gives them, and samples of real consoles."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.runs import Run, RunStatus
from worker.cluster import Record

STAMP = "2026-01-31T12:00:00.000000Z"


@pytest.fixture(scope="session")
def run() -> Run:
    """A run at work."""
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return Run(
        run_id="run-20260131-120000-0a1b2c3d",
        pipeline="hello",
        session_id="0f4d2c6e-1111-4222-8333-444455556666",
        queued_at=at,
        started_at=at,
        status=RunStatus.RUNNING,
    )


@pytest.fixture(scope="session")
def sample() -> Callable[[str], list[str]]:
    """Reads the lines of a real console of Nextflow 24.10.0, by name."""

    def read(name: str) -> list[str]:
        path = Path(__file__).parent / "samples" / f"{name}.24.10.0.log"
        return path.read_text(encoding="utf-8").splitlines()

    return read


@pytest.fixture(scope="session")
def as_records() -> Callable[[Sequence[str]], list[Record]]:
    """Makes of lines what a cluster would give."""
    return lambda lines: [Record(STAMP, "stdout", line) for line in lines]
