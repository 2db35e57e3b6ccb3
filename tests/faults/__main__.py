"""`python -m faults`: every fault many times, and a table of what became of it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster import images
from cluster.node import NodeFailed, down, running, up
from faults import kubernetes, local
from faults.cluster_stage import cluster_stage
from faults.local_stage import local_stage
from faults.report import Row, table
from faults.suite import Suite
from faults.trial import MakeStage

from nfctl import tools


def main() -> int:
    """Run the trials and print the table; returns 1 when one was not clean, or a fault never came amid the log."""
    parser = argparse.ArgumentParser(
        prog="python -m faults", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20, help="trials of each fault")
    parser.add_argument("--jobs", type=int, default=3, help="trials at once, of those that do not disturb each other")
    parser.add_argument("--only", default="", help="only faults with this in their names; an unknown one lists all")
    parser.add_argument("--runner", choices=("local", "kubernetes"), help="only the faults of this runner")
    parser.add_argument("--seed", default=str(int(time.time())), help="what the random moments come from")
    arguments = parser.parse_args()
    faults = {
        runner: [fault for fault in of_runner if arguments.only in fault.name and arguments.runner in (None, runner)]
        for runner, of_runner in _FAULTS.items()
    }
    if not any(faults.values()):
        names = "\n  ".join(fault.name for of_runner in _FAULTS.values() for fault in of_runner)
        parser.error(f"no fault is meant; there are:\n  {names}")
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"Seed {arguments.seed}; files of trials that are not clean stay in {root}.", flush=True)
    rows: list[Row] = []
    for runner, chosen in faults.items():
        if chosen:
            with _STAGES[runner](arguments.jobs) as stages:
                suite = Suite(stages, root, arguments.times, arguments.seed, _say)
                suite.begin(chosen)
                rows += [Row(fault, suite.verdicts(fault)) for fault in chosen]
    print(f"\n{table(rows)}\n")
    wrong = [row.fault.name for row in rows if not row.clean]
    print(
        f"Not clean: {', '.join(wrong)}."
        if wrong
        else "All is clean. Recovery is in seconds, memory that of a process."
    )
    with suppress(OSError):  # something is kept there
        root.rmdir()
    return 0 if all(row.clean for row in rows) else 1


@contextmanager
def _on_this_machine(jobs: int) -> Iterator[Sequence[MakeStage]]:
    yield [local_stage(tools.nextflow(_say))] * jobs


@contextmanager
def _on_the_cluster(jobs: int) -> Iterator[Sequence[MakeStage]]:
    was_up = running() is not None
    try:
        node = up(_say)
    except (NodeFailed, tools.ToolMissing) as error:
        sys.exit(str(error))
    image = images.image("nextflow", _say)
    node.import_image(image.archive)
    try:
        yield [cluster_stage(node, image, f"nextflow-faults-{number}") for number in range(jobs)]
    finally:
        if not was_up:
            down(_say)


_FAULTS = {"local": local.FAULTS, "kubernetes": kubernetes.FAULTS}
_STAGES = {"local": _on_this_machine, "kubernetes": _on_the_cluster}


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
