"""Trial: one run of the whole service with one fault in it, judged from outside."""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from faults.viewer import Viewer, numbers
from service_process import Service

VIEWERS = 5
_MOST_MIB = 250
_SECONDS_TO_END = 240
_KEEP_ALL = {"LOG_RETENTION_LINES": "1000000", "LOG_RETENTION_BYTES": "100000000"}


class Stage(Protocol):
    """Where the runs of a trial work, and what somebody sees of them who does not ask the service."""

    settings: Mapping[str, str]
    """What a service needs to have its runs work here."""
    pipeline: str
    """What that service calls the pipeline that prints `params.lines` numbered lines."""

    def journal(self) -> list[dict[str, Any]]:
        """`{began, run_id, beside}` for each start of a Nextflow, `{ended, run_id, code}` for each end that was seen.

        `beside` names the runs whose Nextflow was at work at that moment.
        """

    def printed(self, run_id: str) -> list[int] | None:
        """The numbers that Nextflow printed, if they are kept anywhere but in the service."""

    def left_of(self, run_id: str) -> Sequence[object]:
        """What is still alive of a run."""


@dataclass(frozen=True)
class Fault:
    """What is done to a run: `inject` is called at a random moment, and returns when healing could begin, if not now.

    The run prints `lines` lines, of `width` characters more, one each `pause` ms.
    """

    name: str
    inject: "Callable[[Scene], float | None]"
    lines: int = 200
    pause: int = 40
    width: int = 0
    nextflow_may_fail: bool = False
    """It may end a run by what the fault does to Nextflow itself; then all must agree on how far the run came."""
    ends_with: str = ""
    """It must end the run, and the run's message must say so in these words."""
    latest: float = 6.0
    """The fault comes at most so many seconds after the submission."""
    needs_root: bool = False
    alone: bool = False
    """It befalls all that works on the same stage, so nothing else may."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """More parameters of the pipeline."""
    ground: "Callable[[Path], AbstractContextManager[Mapping[str, str]]]" = lambda _: nullcontext({})
    """Prepares the directory of a service to come, and gives settings for it."""


@dataclass
class Verdict:
    """What became of a trial: counts over all viewers and the kept log, and all that was wrong, in words."""

    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    wrong: list[str] = field(default_factory=list)
    recovery: float = 0.0
    """Seconds from when the fault was over until every viewer saw a line printed after it, or the end."""
    peak_mib: float = 0.0
    """The most memory that a process of the service ever had."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.wrong)

    def count(self, found: Sequence[int], expected: Sequence[int]) -> None:
        """Compare lines, or ids, with what should have come."""
        times = Counter(found)
        self.lost += sum(1 for number in expected if not times[number])
        self.doubled += sum(count - 1 for count in times.values())
        self.disordered += sum(1 for before, after in itertools.pairwise(found) if after < before)

    def check(self, true: bool, otherwise: str) -> None:
        """Keep the words unless it is true."""
        if not true:
            self.wrong.append(otherwise)


@dataclass
class Scene:
    """Where a fault is injected: a service with a run at work, or about to be."""

    stage: Stage
    service: Service
    rng: random.Random
    directory: Path
    verdict: Verdict
    run_id: str = ""
    more_runs: list[str] = field(default_factory=list)
    """Other runs that the fault started; they are judged too, but for their lines."""
    cancelled: set[str] = field(default_factory=set)
    """Runs whose cancel the service took."""
    viewers: list[Viewer] = field(default_factory=list)

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of a process of the service."""
        entries = Path(f"/proc/{self.pids(name)[0]}/environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def pids(self, name: str, least: int = 1) -> list[int]:
        """Pids of processes of the service, the topmost first; waits until there are so many."""
        self.service.wait(lambda: len(self.service.children(name)) >= least)
        return self.service.children(name)

    def signal(self, pids: Sequence[int], number: int) -> None:
        """Send a signal to processes that may have ended."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


MakeStage = Callable[[Path], AbstractContextManager[Stage]]


def run_trial(fault: Fault, stage: MakeStage, directory: Path, seed: str) -> Verdict:
    """Start a service, submit a run, do the worst, and judge. Nothing is left of it afterwards but files."""
    verdict = Verdict()
    with ExitStack() as stack:
        ground = stack.enter_context(fault.ground(directory))
        place = stack.enter_context(stage(directory))
        service = Service(directory / "data", **_KEEP_ALL, **place.settings, **ground)
        stack.callback(service.kill)
        service.start()
        _try(fault, Scene(place, service, random.Random(seed), directory, verdict))
    verdict.check(not _alive(directory), "processes of the service were left when it had been stopped")
    return verdict


def _try(fault: Fault, scene: Scene) -> None:
    service, rng = scene.service, scene.rng
    parameters = {"lines": fault.lines, "pause": fault.pause, "width": fault.width, **fault.more}
    scene.run_id = service.submit(scene.stage.pipeline, parameters=parameters)
    for number in range(VIEWERS):
        viewer = Viewer(service.url, scene.run_id, random.Random(rng.random()), restless=number == 0)
        viewer.start()
        scene.viewers.append(viewer)
    try:
        time.sleep(rng.uniform(0, fault.latest))
        over = fault.inject(scene) or time.time()
        for run_id in [scene.run_id, *scene.more_runs]:
            service.ended(run_id, _SECONDS_TO_END)
        for viewer in scene.viewers:
            viewer.join(60)
        scene.verdict.recovery = max(_recovery(viewer, over) for viewer in scene.viewers)
        _judge(scene, fault)
    finally:
        for viewer in scene.viewers:
            viewer.give_up()


def _recovery(viewer: Viewer, over: float) -> float:
    seen = viewer.saw_line_printed_after(over) or viewer.completed_at
    return max(0.0, seen - over) if seen is not None else float("inf")


def _judge(scene: Scene, fault: Fault) -> None:
    service, verdict = scene.service, scene.verdict
    kept = numbers(service.lines(scene.run_id))
    status = service.run(scene.run_id)["status"]
    partly = (fault.nextflow_may_fail or bool(fault.ends_with)) and status == "failed"
    if fault.ends_with:
        message = service.run(scene.run_id)["message"] or ""
        verdict.check(status == "failed", "the fault did not end the run")
        verdict.check(fault.ends_with in message, f"the run's message does not tell the fault: {message}")
    verdict.check(partly or status == "succeeded", f"the run has {status}")
    printed = scene.stage.printed(scene.run_id) if partly else None
    reached = kept if printed is None else printed
    expected = range(1, (max(reached, default=0) if partly else fault.lines) + 1)
    verdict.count(kept, expected)
    for viewer in scene.viewers:
        verdict.count(viewer.numbers, expected)
        verdict.count(viewer.ids, range(1, max(viewer.ids, default=0) + 1))
        verdict.check(viewer.completes == [status], f"the run has {status}, and a viewer was told {viewer.completes}")
    for run_id in [scene.run_id, *scene.more_runs]:
        _judge_run(scene, run_id)
    history = Counter(_history(service))
    verdict.check(history == Counter([scene.run_id, *scene.more_runs]), f"the history is {history}")
    verdict.check(not service.client.call("GET", "/active")["active"], "something is still said to be active")
    verdict.peak_mib = max(service.peak_memory().values())
    verdict.check(verdict.peak_mib < _MOST_MIB, f"a process of the service took {verdict.peak_mib:.0f} MiB")


def _history(service: Service) -> list[str]:
    found: list[str] = []
    while page := service.client.call(
        "GET", "/history", params={"limit": 100, **({"before": found[-1]} if found else {})}
    ):
        found += [entry["run_id"] for entry in page]
    return found


def _judge_run(scene: Scene, run_id: str) -> None:
    """Compare what the service says of a run with what Nextflow did."""
    service, verdict = scene.service, scene.verdict
    info, events = service.run(run_id), service.events(run_id)
    ids = [event["id"] for event in events]
    verdict.check(ids == list(range(1, len(ids) + 1)), f"{run_id}: the ids of kept events have holes")
    completes = [event["data"]["status"] for event in events if event["type"] == "complete"]
    verdict.check(completes == [info["status"]], f"{run_id} is {info['status']}, and its completes are {completes}")
    journal = [entry for entry in scene.stage.journal() if entry["run_id"] == run_id]
    begun = [entry for entry in journal if "began" in entry]
    ended = [entry["code"] for entry in journal if "ended" in entry]
    verdict.check(len(begun) <= 1, f"{run_id}: Nextflow began {len(begun)} times")
    for entry in begun:
        verdict.check(not entry["beside"], f"{run_id}: Nextflow began beside {entry['beside']}")
    right = "succeeded" if ended == [0] else "cancelled" if run_id in scene.cancelled else "failed"
    verdict.check(info["status"] == right, f"{run_id} is {info['status']}; Nextflow ended with {ended}")
    verdict.check(bool(begun) or info["exit_code"] is None, f"{run_id}: an exit code of what never began")
    verdict.check(ended in ([], [info["exit_code"]]), f"{run_id}: exit code {info['exit_code']}, Nextflow's {ended}")
    left = scene.stage.left_of(run_id)
    verdict.check(not left, f"{run_id}: of it are left {left}")


def _alive(directory: Path) -> list[str]:
    """Command lines of living processes whose data are in this directory."""
    mark = f"DATA_DIR={directory / 'data'}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
