"""Each fault of one machine twice, at moments of their own; `make faults` does it twenty times and draws the table."""

import os
from pathlib import Path

import pytest
from faults.local import FAULTS
from faults.local_stage import local_stage
from faults.trial import Fault, run_trials

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, nextflow: Path, redis_binary: Path, tmp_path: Path) -> None:
    """No line lost, doubled or out of order at any viewer; one end, and the right one; nothing left behind."""
    if fault.needs_root and os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("mounting a small disk needs root")
    verdicts = run_trials(fault, [local_stage(nextflow)] * 2, tmp_path)
    assert all(verdict.clean for verdict in verdicts), verdicts
