"""Growth with lines: runs that print more and more at once, all the way to a socket, and who joins late."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.caller import API, Caller
from bench.figures import Row, Section, ratio
from bench.plot import Plot
from bench.processes import TrialFailed, memory, own_cpu_seconds
from bench.sizes import Sizes
from bench.stage import AT_ONCE, directory, printing, say, service_with_child, socket_events, write_child
from service_process import Service

_PROGRAMS = {"worker": "worker@", "web": "gunicorn", "Redis": "redis-server"}
# From so many lines on, a run is measured once: it takes long enough.
_LONG = 1_000_000
_PULSE_SECONDS = 0.25
_PATIENCE = 1_800.0
# As much as a run of any size has, so that a socket that is behind is caught up, and every line is read.
_ALL_KEPT = {"LOG_RETENTION_LINES": "10000000", "LOG_RETENTION_BYTES": "100000000000"}
_HEADINGS = (
    "lines",
    "lines/s at a socket",
    "the child's, piped to `tee`",
    "ratio",
    "CPU µs a line: worker / web / Redis",
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
    "ratio of the two tails",
)
_NOTE = (
    "From the POST to `complete` at a socket that checked that each line came once and in order, all lines kept; then "
    "the same unwatched with the default retention, where the run's own file was checked to have each line once and in "
    "order. Medians, but of a million lines and more one run each."
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
    """What runs of one length took, each figure by round. `cpu` is in seconds a line, by program."""

    watched: list[float] = field(default_factory=list)
    piped: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    watched_peaks: dict[str, float] = field(default_factory=dict)
    unwatched: list[float] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)
    joined: list[float] = field(default_factory=list)
    tailed: list[float] = field(default_factory=list)
    paged: list[float] = field(default_factory=list)
    bare_tail: list[float] = field(default_factory=list)


def measure(sizes: Sizes) -> list[Section]:
    """Run after run, longer and longer."""
    found = {lines: Found() for lines in sizes.lines}
    rounds = {lines: 1 if lines >= _LONG else sizes.rounds for lines in sizes.lines}
    with service_with_child(**_ALL_KEPT) as running, directory() as here:
        child = write_child(here)
        for lines, one in found.items():
            for _ in range(rounds[lines]):
                _watched(running, lines, one)
                one.piped.append(lines / _piped(child, lines))
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


def _piped(child: Path, lines: int) -> float:
    """The seconds that the child alone takes when `tee` reads it and writes a file."""
    parameters = child.parent / "parameters.json"
    parameters.write_text(json.dumps(printing(AT_ONCE, lines)))
    began = time.monotonic()
    with subprocess.Popen([str(child), "-params-file", str(parameters)], stdout=subprocess.PIPE) as alone:
        copy = ["tee", str(child.parent / "log")]
        subprocess.run(copy, stdin=alone.stdout, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


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
    caller = Caller(running.port)
    last_id = running.client.call("GET", f"/runs/{run_id}/events", params={"limit": 1})["last_id"]
    for _ in range(max(3, rounds)):
        found.joined.append(_joined(running, run_id, lines))
        found.tailed.append(caller.get(f"{API}/runs/{run_id}/logs?tail=100"))
        found.paged.append(caller.get(f"{API}/runs/{run_id}/events?before={last_id + 1}"))
        began = time.perf_counter()
        subprocess.run(["tail", "-n", "100", str(log)], stdout=subprocess.DEVNULL, check=True)
        found.bare_tail.append(time.perf_counter() - began)


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
        " / ".join(f"{found.watched_peaks[name]:.0f}" for name in ("worker", "web")),
        f"{median(found.unwatched):,.0f}",
        " / ".join(f"{found.peaks[name]:.0f}" for name in _PROGRAMS),
    )


def _late_row(lines: int, found: Found) -> Row:
    times = (found.joined, found.tailed, found.paged, found.bare_tail)
    shown = (f"{1000 * median(one):.1f}" for one in times)
    return f"{lines:,}", *shown, ratio(median(found.tailed), median(found.bare_tail))


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
        "socket to the newest line": [(float(lines), 1000 * median(one.joined)) for lines, one in found.items()],
        "/logs?tail=100": [(float(lines), 1000 * median(one.tailed)) for lines, one in found.items()],
        "/events?before=": [(float(lines), 1000 * median(one.paged)) for lines, one in found.items()],
    }
    return Plot("Joining late", "lines of the run", "milliseconds", lines)
