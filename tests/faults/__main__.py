"""`python -m faults`: every fault many times, and a table of what became of it."""

import argparse
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cluster import images
from cluster.node import NodeFailed, down, running, up
from faults import kubernetes, local
from faults.cluster_stage import cluster_stage
from faults.local_stage import local_stage
from faults.report import Row, table
from faults.trial import Fault, MakeStage, Verdict, run_trial

from nfctl import tools


def main() -> int:
    """Run the trials and print the table; returns 1 when one was not clean."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="trials of each fault")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once, of those that do not disturb each other")
    parser.add_argument("--only", default="", help="only faults with this in their names")
    parser.add_argument("--runner", choices=("local", "kubernetes"), help="only the faults of this runner")
    parser.add_argument("--keep", action="store_true", help="keep the files of clean trials too")
    parser.add_argument("--seed", default=str(int(time.time())), help="what the random moments come from")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"Seed {arguments.seed}; files of trials that are not clean stay in {root}.", flush=True)
    rows: list[Row] = []
    for runner, faults in (("local", local.FAULTS), ("kubernetes", kubernetes.FAULTS)):
        chosen = [fault for fault in faults if arguments.only in fault.name and arguments.runner in (None, runner)]
        if chosen:
            with _STAGES[runner](arguments.jobs) as stages:
                rows += _Suite(arguments, root, stages).run(chosen)
    print(f"\n{table(rows)}")
    return 0 if all(verdict.clean for row in rows for verdict in row.verdicts) else 1


class _Suite:
    """The trials of one runner. `stages` are as many as may work at once."""

    def __init__(self, arguments: argparse.Namespace, root: Path, stages: Sequence[MakeStage]) -> None:
        self._arguments = arguments
        self._root = root
        self._free: queue.SimpleQueue[MakeStage] = queue.SimpleQueue()
        for stage in stages:
            self._free.put(stage)
        self._jobs = len(stages)

    def run(self, faults: Sequence[Fault]) -> list[Row]:
        """A row for each fault, in their order."""
        rows = {fault.name: Row(fault.name) for fault in faults}
        for alone in (False, True):
            with ThreadPoolExecutor(1 if alone else self._jobs) as pool:
                for fault in [fault for fault in faults if fault.alone is alone]:
                    for number in range(self._arguments.times):
                        pool.submit(self._trial, fault, number, rows[fault.name])
        return list(rows.values())

    def _trial(self, fault: Fault, number: int, row: Row) -> None:
        stage = self._free.get()
        directory = Path(tempfile.mkdtemp(dir=self._root))
        try:
            verdict = run_trial(fault, stage, directory, f"{self._arguments.seed} {fault.name} {number}")
        except BaseException as error:  # a trial that cannot be judged is one that went wrong
            verdict = Verdict(wrong=[f"{type(error).__name__}: {error}"])
        finally:
            self._free.put(stage)
        if verdict.clean and not self._arguments.keep:
            shutil.rmtree(directory)
        row.verdicts.append(verdict)
        where = "" if verdict.clean else f" in {directory}"
        print(f"{fault.name} {number}{where}: {verdict}", flush=True)


@contextmanager
def _on_this_machine(jobs: int) -> Iterator[Sequence[MakeStage]]:
    yield [local_stage(tools.nextflow(print))] * jobs


@contextmanager
def _on_the_cluster(jobs: int) -> Iterator[Sequence[MakeStage]]:
    was_up = running() is not None
    try:
        node = up(print)
    except (NodeFailed, tools.ToolMissing) as error:
        sys.exit(str(error))
    image = images.image("nextflow", print)
    node.import_image(image.archive)
    try:
        yield [cluster_stage(node, image, f"nextflow-faults-{number}") for number in range(jobs)]
    finally:
        if not was_up:
            down(print)


_STAGES = {"local": _on_this_machine, "kubernetes": _on_the_cluster}


if __name__ == "__main__":
    sys.exit(main())
