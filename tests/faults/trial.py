"""Trial: one run of the whole service with one fault in it, judged from outside."""

import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from faults.viewer import Viewer, numbers
from service_process import Service

from worker.local_cluster import parse_records

VIEWERS = 5
# One names its run only when it comes back, and two stay until they are cut off.
_RESTLESS = (0, 2)
_MOST_MIB = 250
_SECONDS_TO_END = 240
_SECONDS_TO_BEGIN = 180
_SECONDS_TO_RECOVER = 60
_SECONDS_TO_START = 150
_SECONDS_TO_BE_READY = 30
_SECONDS_TO_BE_TOLD = 10
_LINES_BEFORE = 100
_MOST_TAKEN_ALONG = 25
_PAUSE_MS = 40
# Of four trials of a fault the first, third and fourth come amid the log and the second while the run starts; after
# the first comes one more run.
_CYCLE, _AT_START, _WITH_ANOTHER = 4, 1, 0
_KEEP_ALL = {"LOG_RETENTION_LINES": "1000000", "LOG_RETENTION_BYTES": "100000000"}


class Stage(Protocol):
    """Where the runs of a trial work, and what somebody sees of them who does not ask the service."""

    settings: Mapping[str, str]
    """What a service needs to have its runs work here."""
    pipeline: str
    """What that service calls the pipeline that prints `params.lines` numbered lines, one each `params.pause` ms."""

    def hurry(self) -> None:
        """From now on nothing pauses between the lines of its runs."""

    def journal(self) -> list[dict[str, Any]]:
        """`{began, run_id, beside}` for each start of a Nextflow, `{ended, run_id, code}` for each end that was seen.

        `beside` names the runs whose Nextflow was at work at that moment.
        """

    def printed(self, run_id: str) -> list[int]:
        """The numbers that Nextflow printed, from where no service comes into it."""

    def left_of(self, run_id: str) -> Sequence[object]:
        """What is still alive of a run."""


@dataclass(frozen=True)
class Fault:
    """What is done to a run: `inject` is called at a random moment, and returns when healing could begin, if not now.

    The run prints numbered lines, of `width` characters more, with a pause after each until the viewers have recovered.
    """

    name: str
    inject: "Callable[[Scene], float | None]"
    lines: int = 3000
    """With their pauses they last longer than any fault."""
    width: int = 0
    before_log: bool = False
    """It must come before the first line, so it is never amid the log."""
    to_the_end: bool = False
    """It lasts until the run ends, so no line is printed after it."""
    harms_nobody: bool = False
    """It is somebody's misbehaviour, and while it lasts each viewer is told each line in time."""
    nextflow_may_fail: bool = False
    """It may end a run by what the fault does to Nextflow itself; then all must agree on how far the run came."""
    ends_with: str = ""
    """It must end the run, and the run's message must say so in words that this regular expression finds."""
    end_unseen: bool = False
    """Nothing is left that could tell the service with which code Nextflow ended."""
    takes_lines_along: bool = False
    """Lines that were printed and not yet written down go with it: what counts is what stands in the run's own file."""
    kubelet_loses_lines: bool = False
    """The kubelet may lose lines that it was asked for, and how many must be told."""
    loses_events: bool = False
    """Events that viewers have seen are gone, and they begin anew when told so. It never comes at the start."""
    latest: float = 6.0
    """While the run starts it comes at most so many seconds after the submission."""
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
    told_lost: int = 0
    """Lines that the kubelet lost, and that were told to be missing."""
    recovery: float = 0.0
    """Seconds from when the fault was over until every viewer saw a line printed after it; or the run's end, if the
    fault went on to that."""
    amid: bool = False
    """Lines were printed before the fault, and after it too unless it went on to the run's end."""
    peak_mib: float = 0.0
    """The most memory that a process of the service ever had, looked at each second."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.wrong)

    def __str__(self) -> str:
        when = "amid the log" if self.amid else "while the run started"
        if self.clean:
            told = f", {self.told_lost} lines told to be lost by the kubelet" if self.told_lost else ""
            return f"clean; {when}, recovered in {self.recovery:.1f} s, {self.peak_mib:.0f} MiB at most{told}"
        counts = f"{self.lost} lost, {self.doubled} doubled, {self.disordered} out of order"
        return f"NOT CLEAN; {when}: {'; '.join([counts, *self.wrong])}"

    def count(self, found: Sequence[int], expected: Sequence[int]) -> None:
        """Compare lines, or ids, with what should have come."""
        times = Counter(found)
        self.lost += sum(1 for number in expected if not times[number])
        self.doubled += sum(count - 1 for count in times.values())
        self.disordered += sum(1 for before, after in itertools.pairwise(found) if after < before)
        never = times.keys() - set(expected)
        self.check(not never, f"{len(never)} numbers came that there never were, {min(never, default=0)} the first")

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
    lasting: ExitStack = field(default_factory=ExitStack)
    """What stays until the run has ended."""

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of a process of the service."""
        entries = Path(f"/proc/{self.pids(name)[0]}/environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def pids(self, name: str, least: int = 1) -> list[int]:
        """Pids of processes of the service, the topmost first; waits until there are so many."""
        self.service.wait(lambda: len(self.service.children(name)) >= least)
        return self.service.children(name)

    def wait_for_line(self, number: int) -> None:
        """Until some viewer has seen that line, or a later one; the run must not end before."""

        def seen() -> bool:
            assert not any(viewer.completes for viewer in self.viewers), f"run {self.run_id} ended by itself"
            return any(max(viewer.numbers, default=0) >= number for viewer in self.viewers)

        self.service.wait(seen, _SECONDS_TO_BEGIN)

    def wait_for_line_after(self, moment: float) -> None:
        """Until some viewer has seen a line that was printed after that moment."""
        self.service.wait(lambda: any(viewer.saw_line_printed_after(moment) for viewer in self.viewers), 60)

    def signal(self, pids: Sequence[int], number: int) -> None:
        """Send a signal to processes that may have ended."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


MakeStage = Callable[[Path], AbstractContextManager[Stage]]


def run_trial(fault: Fault, stage: MakeStage, directory: Path, number: int, seed: str) -> Verdict:
    """Start a service, submit a run, do the worst, and judge. Nothing is left of it afterwards but files.

    Trials of other numbers, or other seeds, come at other moments.
    """
    verdict = Verdict()
    rng = random.Random(f"{seed} {fault.name} {number}")
    with ExitStack() as stack:
        ground = stack.enter_context(fault.ground(directory))
        place = stack.enter_context(stage(directory))
        service = Service(directory / "data", **_KEEP_ALL, **place.settings, **ground)
        stack.callback(service.kill)
        service.start()
        scene = Scene(place, service, rng, directory, verdict)
        memory = stack.enter_context(_MemoryWatch(service))
        with scene.lasting:
            _try(fault, scene, number % _CYCLE)
        if number % _CYCLE == _WITH_ANOTHER:
            _run_another(scene)
        _judge(scene, fault)
        verdict.peak_mib = memory.peak()
        verdict.check(verdict.peak_mib < _MOST_MIB, f"a process of the service took {verdict.peak_mib:.0f} MiB")
    verdict.check(not _alive(directory), "processes of the service were left when it had been stopped")
    return verdict


def _try(fault: Fault, scene: Scene, turn: int) -> None:
    service, rng, verdict = scene.service, scene.rng, scene.verdict
    parameters = {"lines": fault.lines, "pause": _PAUSE_MS, "width": fault.width, **fault.more}
    scene.run_id = service.submit(scene.stage.pipeline, parameters=parameters)
    for number in range(VIEWERS):
        of_its_own = random.Random(rng.random())
        # One that happens to be away when events are lost may come back too late to be told.
        restless = number in _RESTLESS and not fault.loses_events
        viewer = Viewer(service.url, scene.run_id, of_its_own, restless=restless, follows=number == 1)
        viewer.start()
        scene.viewers.append(viewer)
    try:
        if fault.before_log or (turn == _AT_START and not fault.loses_events):
            time.sleep(rng.uniform(0, fault.latest))
        else:
            scene.wait_for_line(rng.randint(1, _LINES_BEFORE))
        began = time.time()
        over = fault.inject(scene) or time.time()
        if fault.harms_nobody:
            _judge_bystanders(scene, began, time.time())
        _wait_for_recovery(scene, over)
        scene.stage.hurry()
        for run_id in [scene.run_id, *scene.more_runs]:
            service.ended(run_id, _SECONDS_TO_END)
            _judge_left(scene, run_id)
        for viewer in scene.viewers:
            viewer.join(60)
        nothing_after = fault.to_the_end or service.run(scene.run_id)["status"] != "succeeded"
        verdict.amid = _is_amid(scene, began, None if nothing_after else over)
        at_end = fault.to_the_end or bool(fault.ends_with)
        verdict.recovery = max(_recovery(viewer, over, at_end=at_end) for viewer in scene.viewers)
        limit = _SECONDS_TO_RECOVER if verdict.amid and not at_end else _SECONDS_TO_START
        verdict.check(verdict.recovery < limit, f"some viewer was told nothing for {verdict.recovery:.0f} s")
    finally:
        for viewer in scene.viewers:
            viewer.give_up()


def _judge_bystanders(scene: Scene, began: float, until: float) -> None:
    """Each viewer was told what was printed in that time, but for its last seconds, when it was printed."""
    if not scene.stage.printed(scene.run_id):  # the run only starts
        return
    for viewer in scene.viewers:
        told = [(printed, here) for printed, here in list(viewer.arrivals) if printed >= began]
        newest = max((printed for printed, _ in told), default=began)
        slowest = max([here - printed for printed, here in told], default=0.0)
        lag = max(slowest, until - newest)
        scene.verdict.check(lag < _SECONDS_TO_BE_TOLD, f"a viewer waited {lag:.0f} s for a line meanwhile")


def _wait_for_recovery(scene: Scene, over: float) -> None:
    """Until each viewer has seen a line that was printed after that moment, or the end; or for a minute."""
    _within(
        _SECONDS_TO_RECOVER,
        lambda: all(viewer.saw_line_printed_after(over) or viewer.completed_at for viewer in scene.viewers),
    )


def _is_amid(scene: Scene, began: float, over: float | None) -> bool:
    printed = [moment for viewer in scene.viewers for moment, _ in viewer.arrivals]
    return bool(printed) and min(printed) < began and (over is None or max(printed) >= over)


def _recovery(viewer: Viewer, over: float, *, at_end: bool) -> float:
    seen = (None if at_end else viewer.saw_line_printed_after(over)) or viewer.completed_at
    return max(0.0, seen - over) if seen is not None else float("inf")


def _run_another(scene: Scene) -> None:
    """Whatever has become of the run, the next one must succeed."""
    parameters = {"lines": 3, "pause": 0}
    scene.more_runs.append(scene.service.submit(scene.stage.pipeline, parameters=parameters))
    another = scene.service.ended(scene.more_runs[-1], _SECONDS_TO_BEGIN)
    scene.verdict.check(
        another["status"] == "succeeded", f"a run afterwards has {another['status']}: {another['message']}"
    )


def _judge(scene: Scene, fault: Fault) -> None:
    service, verdict = scene.service, scene.verdict
    _judge_log(scene, fault)
    for run_id in [scene.run_id, *scene.more_runs]:
        _judge_run(scene, run_id, unseen=fault.end_unseen and run_id == scene.run_id)
    history = Counter(_history(service))
    verdict.check(history == Counter([scene.run_id, *scene.more_runs]), f"the history is {history}")
    verdict.check(not service.client.call("GET", "/active")["active"], "something is still said to be active")
    _judge_overlap(scene)
    ready = _within(_SECONDS_TO_BE_READY, lambda: service.get("/health").status_code == 200)
    verdict.check(ready, f"when all was over, the service was not ready for {_SECONDS_TO_BE_READY} s")


def _within(seconds: float, so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (answer := so()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def _judge_log(scene: Scene, fault: Fault) -> None:
    """Compare the kept log, and what each viewer was told, with what was printed."""
    service, verdict = scene.service, scene.verdict
    info = service.run(scene.run_id)
    status, message = info["status"], info["message"] or ""
    if fault.ends_with:
        verdict.check(status == "failed", "the fault did not end the run")
        told = re.search(fault.ends_with, message) is not None
        verdict.check(told, f"the run's message does not tell the fault: {message}")
    cancelled = status == "cancelled" and scene.run_id in scene.cancelled
    ended_by_it = bool(fault.ends_with) or (fault.nextflow_may_fail and _nextflow_failed(scene, message))
    failed = status == "failed" and ended_by_it
    verdict.check(cancelled or failed or status == "succeeded", f"the run has {status}: {message}")
    printed = scene.stage.printed(scene.run_id)
    verdict.check(bool(printed) or not verdict.amid, "nothing is known of what was printed")
    if fault.takes_lines_along:
        written = _written(scene)
        gone = len(set(printed) - set(written))
        verdict.check(gone < _MOST_TAKEN_ALONG, f"of {len(printed)} lines {gone} were never written down")
        printed = written
    expected: Sequence[int] = range(1, (fault.lines if status == "succeeded" else max(printed, default=0)) + 1)
    kept = numbers(service.lines(scene.run_id))
    lost, told_lost = set(expected) - set(kept), _told_lost(scene)
    if fault.kubelet_loses_lines and told_lost == len(lost):
        verdict.told_lost = told_lost
        expected = [number for number in expected if number not in lost]
    else:
        verdict.check(not told_lost, f"viewers were told that {told_lost} lines are missing")
    verdict.count(kept, expected)
    last_id = service.events(scene.run_id)[-1]["id"]
    for viewer in scene.viewers:
        verdict.count(viewer.numbers, expected)
        verdict.count(viewer.ids, range(1, last_id + 1))
        verdict.check(viewer.completes == [status], f"the run has {status}, and a viewer was told {viewer.completes}")
        times = viewer.began_anew
        verdict.check(times == fault.loses_events, f"a viewer was told {times} times that events are lost")
        verdict.check(viewer.came_back, "a viewer that came back after the end was not let in")
        verdict.check(viewer.without_id <= {"status"}, f"a viewer was told {viewer.without_id} without an id")
        for run_id, ids in viewer.of_others.items():
            verdict.check(ids == list(range(1, len(ids) + 1)), f"a viewer was led on to {run_id} and told {ids}")


def _told_lost(scene: Scene) -> int:
    """How many lines of the log viewers were told to be missing."""
    events = (event["data"] for event in scene.service.events(scene.run_id) if event["type"] == "error")
    return sum(
        int(told[1])
        for data in events
        if (told := re.match(r"(\d+) of the \d+ lines of .* are missing", data["message"]))
    )


def _written(scene: Scene) -> list[int]:
    """The numbers in the run's own file on this machine."""
    log = scene.service.data_dir / "runs" / scene.run_id / "log"
    records, _ = parse_records(log.read_bytes() if log.exists() else b"", last=True)
    return numbers(record.text for record in records)


def _nextflow_failed(scene: Scene, message: str) -> bool:
    """Whether Nextflow itself failed, or there was no room in which it could begin."""
    codes = _codes(_journal(scene, scene.run_id))
    return any(codes) or (not codes and "No space left" in message)


def _journal(scene: Scene, run_id: str) -> list[dict[str, Any]]:
    """What became of Nextflow in a run."""
    return [entry for entry in scene.stage.journal() if entry["run_id"] == run_id]


def _codes(journal: Sequence[Mapping[str, Any]]) -> list[Any]:
    """With what it ended, as far as that was seen."""
    return [entry["code"] for entry in journal if "ended" in entry]


def _history(service: Service) -> list[str]:
    found: list[str] = []
    while page := service.client.call(
        "GET", "/history", params={"limit": 100, **({"before": found[-1]} if found else {})}
    ):
        found += [entry["run_id"] for entry in page]
    return found


def _judge_run(scene: Scene, run_id: str, *, unseen: bool) -> None:
    """Compare what the service says of a run with what Nextflow did."""
    service, verdict = scene.service, scene.verdict
    info, events = service.run(run_id), service.events(run_id)
    ids = [event["id"] for event in events]
    verdict.check(ids == list(range(1, len(ids) + 1)), f"{run_id}: the ids of kept events have holes")
    verdict.check(events[-1]["type"] == "complete", f"{run_id}: the last kept event is {events[-1]['type']}")
    completes = [event["data"]["status"] for event in events if event["type"] == "complete"]
    verdict.check(completes == [info["status"]], f"{run_id} is {info['status']}, and its completes are {completes}")
    journal = _journal(scene, run_id)
    begun = [entry for entry in journal if "began" in entry]
    ended = _codes(journal)
    verdict.check(len(begun) <= 1, f"{run_id}: Nextflow began {len(begun)} times")
    for entry in begun:
        verdict.check(not entry["beside"], f"{run_id}: Nextflow began beside {entry['beside']}")
    right = "succeeded" if ended == [0] else "cancelled" if run_id in scene.cancelled else "failed"
    verdict.check(info["status"] == right, f"{run_id} is {info['status']}; Nextflow ended with {ended}")
    spared = run_id in scene.more_runs and run_id not in scene.cancelled
    verdict.check(not spared or info["status"] == "succeeded", f"{run_id}, one of the others, is {info['status']}")
    verdict.check(bool(begun) or info["exit_code"] is None, f"{run_id}: an exit code of what never began")
    seen = [None] if unseen else ended
    verdict.check(seen in ([], [info["exit_code"]]), f"{run_id}: exit code {info['exit_code']}, Nextflow's {seen}")
    _judge_left(scene, run_id)


def _judge_left(scene: Scene, run_id: str) -> None:
    """Nothing of a run that is said to have ended is at work."""
    left = scene.stage.left_of(run_id)
    scene.verdict.check(not left, f"{run_id}: of it are left {left}")


def _judge_overlap(scene: Scene) -> None:
    """Two that began in one moment have not seen one another: what their journal says of their ends tells it."""
    at: dict[str, dict[str, float]] = {}
    for entry in scene.stage.journal():
        # On a cluster ends have no times of their own; there whoever looks sees all that works at once.
        times = {what: entry[what] for what in ("began", "ended") if isinstance(entry.get(what), float)}
        at.setdefault(entry["run_id"], {}).update(times)
    whole = sorted((times["began"], times["ended"], run_id) for run_id, times in at.items() if len(times) == 2)
    for (_, ended, one), (began, _, other) in itertools.pairwise(whole):
        scene.verdict.check(began >= ended, f"{other} began {ended - began:.1f} s before {one} had ended")


class _MemoryWatch:
    """Looks each second how much memory the processes of a service have had, also of those that end before it does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._peak = 0.0
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def peak(self) -> float:
        """The most that any of them ever had, in MiB."""
        if self._failure is not None:
            raise self._failure
        self._look()
        return self._peak

    def _watch(self) -> None:
        while not self._over.wait(1):
            try:
                self._look()
            except (AssertionError, OSError):  # it is stopped just now, and perhaps started again
                pass
            except Exception as error:  # told to whoever asks
                self._failure = error
                return

    def _look(self) -> None:
        self._peak = max([self._peak, *self._service.peak_memory().values()])


def _alive(directory: Path) -> list[str]:
    """Command lines of living processes whose data are in this directory."""
    mark = f"DATA_DIR={directory / 'data'}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
