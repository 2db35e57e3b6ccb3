"""Growth with lines: runs that print more and more at once, all the way to a socket, and who joins late."""

import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.caller import API, Caller
from bench.figures import Row, Section, ratio
from bench.plot import Plot
from bench.processes import TrialFailed, cpu_to_end, memory, own_cpu_seconds
from bench.sizes import Sizes
from bench.stage import AT_ONCE, directory, printing, say, service_with_child, socket_events, write_child
from service_process import Service

_PROGRAMS = {"worker": "worker@", "web": "gunicorn", "Redis": "redis-server"}
# From so many lines on, a run takes minutes.
_LONG = 10_000_000
# What a service does the first time, it does for this run.
_FIRST_LINES = 1_000
_PULSE_SECONDS = 0.25
_LATE_ROUNDS = 3
_GAP_SECONDS = 0.02
_PATIENCE = 1_800.0
# As much as a run of any size has, so that a socket that is behind is caught up, and every line is read.
_ALL_KEPT = {"LOG_RETENTION_LINES": "10000000", "LOG_RETENTION_BYTES": "100000000000"}
_HEADINGS = (
    "lines",
    "lines/s at a socket",
    "the child's, piped to `tee`",
    "ratio",
    "CPU µs a line: worker / web / Redis",
    "÷ `tee`'s",
    "most memory (MiB PSS): worker / web",
    "lines/s, default retention, unwatched",
    "… most memory: worker / web / Redis",
)
_LATE_HEADINGS = (
    "lines",
    "socket opened to the newest line (ms)",
    "`/logs?tail=100` (ms)",
    "`/events?before=` (ms)",
    "`tail -n 100` of the log (ms)",
    "÷ `tail`",
    "CPU ms of each: web and Redis; `tail`",
)
_NOTE = (
    "From the POST to `complete` at a socket that checked that each line came once and in order, all lines kept; then "
    "the same unwatched with the default retention, where the run's own file was checked to have each line once and in "
    "order. Each of the first on a service of its own; in turns with the child that is "
    "piped. The run's shim, which does what `tee` does, is not in the service's CPU."
)
_LATE_NOTE = "After the end of the run, default retention: a socket that opens with `since=0` has all that is kept."


@dataclass(slots=True)
class Peaks:
    """The most memory that each program had at once, all its processes together, in MiB."""

    pids: Mapping[str, Sequence[int]]
    most: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Once."""
        for name, pids in self.pids.items():
            self.most[name] = max(self.most.get(name, 0.0), sum(map(memory, pids)))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again while the block runs."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_PULSE_SECONDS):
                self.look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self.look()


@dataclass(slots=True)
class Found:
    """What runs of one length took, each figure by round. `cpu` and `tee_cpu` are in seconds a line."""

    watched: list[float] = field(default_factory=list)
    piped: list[float] = field(default_factory=list)
    tee_cpu: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    watched_peaks: dict[str, float] = field(default_factory=dict)
    unwatched: list[float] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)
    late: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Wall and CPU seconds of each way to see the end of a run that has ended."""


_JOINED, _TAILED, _PAGED, _BARE = "socket to the newest line", "/logs?tail=100", "/events?before=", "tail"


def measure(sizes: Sizes) -> list[Section]:
    """Run after run, longer and longer."""
    found = {lines: Found() for lines in sizes.lines}
    rounds = {lines: sizes.trials if lines >= _LONG else sizes.rounds for lines in sizes.lines}
    with directory() as here:
        child = write_child(here)
        for lines, one in found.items():
            for _ in range(rounds[lines]):
                with service_with_child(**_ALL_KEPT) as running:
                    running.ended(running.submit("bench", parameters=printing(AT_ONCE, _FIRST_LINES)))
                    _watched(running, lines, one)
                _piped(child, lines, one)
            say(f"{lines:,} lines: {median(one.watched):,.0f}/s at a socket, {median(one.piped):,.0f}/s piped")
    for lines, one in found.items():  # a service each, or memory would be that of the longest run so far
        with service_with_child() as running:
            _unwatched(running, lines, rounds[lines], one)
    rows = [_row(lines, one) for lines, one in found.items()]
    late = [_late_row(lines, one) for lines, one in found.items()]
    return [
        Section("More lines", rows, _HEADINGS, [_NOTE], {"lines": _rates_plot(found), "memory": _memory_plot(found)}),
        Section("Joining late", late, _LATE_HEADINGS, [_LATE_NOTE], {"late": _late_plot(found)}),
    ]


def _watched(running: Service, lines: int, found: Found) -> None:
    """Raises TrialFailed when a line was lost, doubled or out of order."""
    pids = _pids(running)
    before = {name: sum(map(own_cpu_seconds, its)) for name, its in pids.items()}
    began = time.monotonic()
    run_id = running.submit("bench", parameters=printing(AT_ONCE, lines))
    due = 1
    with Peaks(pids, found.watched_peaks).watching():
        for event, _ in socket_events(running.port, run_id):
            for line in event["data"]["lines"] if event["type"] == "log" else ():
                if line["line"] != due:
                    raise TrialFailed(f"Line {line['line']} came where {due} was due.")
                due += 1
    found.watched.append(lines / (time.monotonic() - began))
    if due <= lines:
        raise TrialFailed(f"Only {due - 1:,} of {lines:,} lines came.")
    found.cpu.append({name: (sum(map(own_cpu_seconds, its)) - before[name]) / lines for name, its in pids.items()})


def _piped(child: Path, lines: int, found: Found) -> None:
    """The child alone, when `tee` reads it and writes a file."""
    parameters = child.parent / "parameters.json"
    parameters.write_text(json.dumps(printing(AT_ONCE, lines)))
    began = time.monotonic()
    with subprocess.Popen([str(child), "-params-file", str(parameters)], stdout=subprocess.PIPE) as alone:
        cpu = cpu_to_end(["tee", str(child.parent / "log")], alone.stdout or subprocess.DEVNULL)
    found.piped.append(lines / (time.monotonic() - began))
    found.tee_cpu.append(cpu / lines)


def _unwatched(running: Service, lines: int, rounds: int, found: Found) -> None:
    peaks = Peaks(_pids(running), found.peaks)
    with peaks.watching():
        for _ in range(rounds):
            began = time.monotonic()
            run_id = running.submit("bench", parameters=printing(AT_ONCE, lines))
            running.ended(run_id, _PATIENCE)
            found.unwatched.append(lines / (time.monotonic() - began))
            log = running.data_dir / "runs" / run_id / "log"
            _check_file(log, lines)
    pids = [pid for name in ("web", "Redis") for pid in peaks.pids[name]]
    caller = Caller(running.port)
    last_id = running.client.call("GET", f"/runs/{run_id}/events", params={"limit": 1})["last_id"]
    ways: Mapping[str, Callable[[], float]] = {
        _JOINED: lambda: _joined(running, run_id, lines),
        _TAILED: lambda: caller.get(f"{API}/runs/{run_id}/logs?tail=100"),
        _PAGED: lambda: caller.get(f"{API}/runs/{run_id}/events?before={last_id + 1}"),
    }
    for way in ways.values():  # what is done the first time
        way()
    for _ in range(_LATE_ROUNDS * rounds):
        for name, way in ways.items():
            before = sum(map(own_cpu_seconds, pids))
            took = way()
            time.sleep(_GAP_SECONDS)  # what closes a socket, too
            found.late[name].append((took, sum(map(own_cpu_seconds, pids)) - before))
        began = time.perf_counter()
        cpu = cpu_to_end(["tail", "-n", "100", str(log)])
        found.late[_BARE].append((time.perf_counter() - began, cpu))


def _check_file(log: Path, lines: int) -> None:
    """What Redis no longer keeps is in the run's own file. Raises TrialFailed where a line is not in its place."""
    due = 0
    with log.open("rb") as file:
        for line in file:
            _, stamp, rest = line.partition(b" stamp ")
            if stamp:
                if int(rest.split(maxsplit=2)[1]) != due:
                    raise TrialFailed(f"Line {due} is not in its place in {log.name}.")
                due += 1
    if due != lines:
        raise TrialFailed(f"{log.name} has {due:,} of {lines:,} lines.")


def _joined(running: Service, run_id: str, lines: int) -> float:
    """The seconds from opening a socket to reading the run's last line. Raises TrialFailed when it does not come."""
    began = time.monotonic()
    for event, _ in socket_events(running.port, run_id):
        if event["type"] == "log" and event["data"]["lines"][-1]["line"] >= lines:
            return time.monotonic() - began
    raise TrialFailed(f"Who joins late does not see line {lines:,}.")


def _pids(running: Service) -> dict[str, list[int]]:
    return {name: running.children(word) for name, word in _PROGRAMS.items()}


def _row(lines: int, found: Found) -> Row:
    mine, his = median(found.watched), median(found.piped)
    return (
        f"{lines:,}",
        f"{mine:,.0f}",
        f"{his:,.0f}",
        ratio(mine, his),
        " / ".join(f"{1e6 * median(one[name] for one in found.cpu):.1f}" for name in _PROGRAMS),
        ratio(median(sum(one.values()) for one in found.cpu), median(found.tee_cpu)),
        " / ".join(f"{found.watched_peaks[name]:.0f}" for name in ("worker", "web")),
        f"{median(found.unwatched):,.0f}",
        " / ".join(f"{found.peaks[name]:.0f}" for name in _PROGRAMS),
    )


def _late_row(lines: int, found: Found) -> Row:
    walls = {name: 1000 * median(wall for wall, _ in each) for name, each in found.late.items()}
    cpus = [f"{1000 * median(cpu for _, cpu in each):.1f}" for each in found.late.values()]
    ways = (_JOINED, _TAILED, _PAGED)
    return (
        f"{lines:,}",
        *(f"{wall:.1f}" for wall in walls.values()),
        " / ".join(ratio(walls[name], walls[_BARE]) for name in ways),
        f"{' / '.join(cpus[:-1])}; {cpus[-1]}",
    )


def _rates_plot(found: Mapping[int, Found]) -> Plot:
    lines = {
        "to a socket": [(float(lines), median(one.watched)) for lines, one in found.items()],
        "unwatched": [(float(lines), median(one.unwatched)) for lines, one in found.items()],
        "the child, piped to tee": [(float(lines), median(one.piped)) for lines, one in found.items()],
    }
    return Plot("Lines a second of a run that prints at once", "lines of the run", "lines/s", lines)


def _memory_plot(found: Mapping[int, Found]) -> Plot:
    lines = {name: [(float(lines), one.peaks[name]) for lines, one in found.items()] for name in _PROGRAMS}
    return Plot("Most memory during a run", "lines of the run", "MiB PSS", lines, even_y=True)


def _late_plot(found: Mapping[int, Found]) -> Plot:
    lines = {
        name: [(float(lines), 1000 * median(wall for wall, _ in one.late[name])) for lines, one in found.items()]
        for name in (_JOINED, _TAILED, _PAGED)
    }
    return Plot("Joining late", "lines of the run", "milliseconds", lines)
