"""Growth with the processes that answer requests: calls of many at once, beside a Flask app that says hello."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.caller import API, Caller
from bench.figures import Row, Section, milliseconds, ratio
from bench.growth_history import fill
from bench.processes import Used, environment, memory_kib
from bench.sizes import Sizes
from bench.stage import PLAIN_COMMAND, WEB_COMMAND, directory, http_server, redis_server, say, settings_alone
from ports import free_port

_CALLERS = 8
_CALLS = 60
_RUNS = 100
_HEADINGS = (
    "processes that answer",
    "`GET /status` a second",
    "ms, p50 / p99",
    "CPU ms each",
    "MiB PSS, all of gunicorn",
    "hello a second",
    "ms, p50 / p99",
    "CPU ms each",
    "ratio of CPU",
)
_NOTE = (
    f"{_CALLERS} callers at once, in Python on the same processors, each call on a connection of its own. Beside it a "
    "Flask app that says hello, in as many processes of gunicorn with gevent. CPU is of the web processes."
)


@dataclass(slots=True)
class Side:
    """What one server took: calls a second and CPU seconds of each, by round; the seconds of all calls; MiB."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    mib: float = 0.0

    def call(self, port: int, pid: int, path: str) -> None:
        """All callers at once, so many times each."""
        used, began = Used(pid), time.monotonic()
        with ThreadPoolExecutor(_CALLERS) as pool:
            for took in pool.map(lambda _: _calls(port, path), range(_CALLERS)):
                self.seconds += took
        self.rates.append(_CALLERS * _CALLS / (time.monotonic() - began))
        self.cpu.append(used.seconds() / (_CALLERS * _CALLS))
        self.mib = memory_kib(pid) / 1024


def measure(sizes: Sizes) -> list[Section]:
    """More and more processes; the two servers in turns."""
    rows = []
    for processes in sizes.processes:
        ours, theirs = Side(), Side()
        with directory() as here, _ours(here, processes) as mine, _hello(here, processes) as his:
            for at, path in ((mine, f"{API}/status"), (his, "/")):
                Side().call(*at, path)  # code is loaded
            for _ in range(sizes.rounds):
                ours.call(*mine, f"{API}/status")
                theirs.call(*his, "/")
        say(f"{processes} processes that answer: {median(ours.rates):,.0f} calls/s")
        rows.append(_row(processes, ours, theirs))
    return [Section("More processes that answer", rows, _HEADINGS, [_NOTE])]


def _calls(port: int, path: str) -> Sequence[float]:
    caller = Caller(port)
    seconds = []
    for _ in range(_CALLS):
        seconds.append(caller.get(path))
        caller.close()
    return seconds


@contextmanager
def _ours(here: Path, processes: int) -> Iterator[tuple[int, int]]:
    """The port and pid of the web server alone, with some runs in history."""
    port = free_port()
    with redis_server(here) as (url, _):
        fill(url, _RUNS)
        its = settings_alone(REDIS_URL=url, PORT=str(port), DATA_DIR=str(here), WEB_PROCESSES=str(processes))
        with http_server(WEB_COMMAND, its, here, port, "/healthz") as pid:
            yield port, pid


@contextmanager
def _hello(here: Path, processes: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [*PLAIN_COMMAND, "-w", str(processes), "-b", f"127.0.0.1:{port}", "bench.peers.bare_flask:app"]
    with http_server(command, environment(), here, port, "/") as pid:
        yield port, pid


def _row(processes: int, ours: Side, theirs: Side) -> Row:
    mine, his = median(ours.cpu), median(theirs.cpu)
    return (
        str(processes),
        f"{median(ours.rates):,.0f}",
        milliseconds(ours.seconds),
        f"{1000 * mine:.2f}",
        f"{ours.mib:.0f}",
        f"{median(theirs.rates):,.0f}",
        milliseconds(theirs.seconds),
        f"{1000 * his:.2f}",
        ratio(mine, his),
    )
