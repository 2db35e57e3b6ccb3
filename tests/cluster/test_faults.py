"""Each fault of a cluster twice, at moments of their own; `make faults` does it twenty times and draws the table."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.images import Images
from cluster.node import Node
from faults.cluster_stage import cluster_stage
from faults.kubernetes import FAULTS
from faults.report import Row
from faults.suite import Suite, chosen
from faults.trial import Fault

pytestmark = [pytest.mark.cluster, pytest.mark.system, pytest.mark.timeout(1200)]

_AT_ONCE = 4
_TIMES = 2


@pytest.fixture(scope="module")
def suite(
    node: Node,
    images: Images,
    redis_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Suite]:
    """All trials of the tests that were chosen, begun at once: a test only waits for its own."""
    stages = [cluster_stage(node, images.nextflow, f"nextflow-faults-{number}") for number in range(_AT_ONCE)]
    made = Suite(stages, tmp_path_factory.mktemp("faults"), _TIMES, "test")
    made.begin(chosen(request))
    yield made
    made.end()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, suite: Suite) -> None:
    """No line lost, doubled or out of order at any viewer; one end, and the right one; no pod left behind."""
    row = Row(fault, suite.verdicts(fault))
    assert row.clean, "\n".join(map(str, row.verdicts))
