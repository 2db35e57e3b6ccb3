"""Each fault of a cluster twice, at moments of their own; `make faults` does it twenty times and draws the table."""

from pathlib import Path

import pytest
from cluster.images import Images
from cluster.node import Node
from faults.cluster_stage import cluster_stage
from faults.kubernetes import FAULTS
from faults.trial import Fault, run_trials

pytestmark = [pytest.mark.cluster, pytest.mark.system, pytest.mark.timeout(900)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, node: Node, images: Images, redis_binary: Path, tmp_path: Path) -> None:
    """No line lost, doubled or out of order at any viewer; one end, and the right one; no pod left behind."""
    stages = [cluster_stage(node, images.nextflow, f"nextflow-faults-{number}") for number in range(2)]
    verdicts = run_trials(fault, stages, tmp_path)
    assert all(verdict.clean for verdict in verdicts), verdicts
