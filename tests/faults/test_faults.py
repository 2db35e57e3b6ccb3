"""Each fault of one machine twice, at moments of their own; `make faults` does it twenty times and draws the table."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.local import FAULTS
from faults.local_stage import local_stage
from faults.report import Row
from faults.suite import Suite, chosen
from faults.trial import Fault

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

_AT_ONCE = 3
_TIMES = 2


@pytest.fixture(scope="module")
def suite(
    nextflow: Path, redis_binary: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Suite]:
    """All trials of the tests that were chosen, begun at once: a test only waits for its own."""
    made = Suite([local_stage(nextflow)] * _AT_ONCE, tmp_path_factory.mktemp("faults"), _TIMES, "test")
    made.begin(fault for fault in chosen(request) if _can_be_tried(fault))
    yield made
    made.end()


def _can_be_tried(fault: Fault) -> bool:
    return not fault.needs_root or os.geteuid() == 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, suite: Suite) -> None:
    """No line lost, doubled or out of order at any viewer; one end, and the right one; nothing left behind."""
    if not _can_be_tried(fault) and not os.environ.get("CI"):
        pytest.skip("mounting a small disk needs root")
    row = Row(fault, suite.verdicts(fault))
    assert row.clean, "\n".join(map(str, row.verdicts))
