"""Calls under load: what they take while many sockets have frames, beside the same without any socket."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.caller import API, Caller
from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened
from bench.figures import Row, Section, compared, latencies
from bench.processes import allow_files, busiest, family, own_cpu_seconds
from bench.sizes import Sizes
from bench.stage import say

_RATE = 20
_PATHS = ("/healthz", f"{API}/status")
# A request each so often: they are to meet the load, not to be it.
_GAP_SECONDS = 0.02
_FIRST = 20


@dataclass(slots=True)
class Taken:
    """By what was asked: the seconds of each call, and CPU milliseconds of the process that answers."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, caller: Caller, answers: int, path: str, name: str) -> None:
        """Once, and wait for a moment."""
        before = own_cpu_seconds(answers)
        self.seconds[name].append(caller.get(path))
        time.sleep(_GAP_SECONDS)
        self.cpu[name].append(1000 * (own_cpu_seconds(answers) - before))


def who_answers(pids: Sequence[int], port: int) -> int:
    """The process of those of a web server that answers calls, after it has answered some."""

    def call() -> None:
        caller = Caller(port)
        for _ in range(_FIRST):
            caller.get(f"{API}/status")
        caller.close()

    return busiest(pids, call)


def measure(sizes: Sizes) -> list[Section]:
    """With sockets and without, in turns."""
    allow_files(max(sizes.crowds))
    program = build.load_program(say)
    loads = [Load(sockets, _RATE, sizes.seconds) for sockets in sizes.crowds]
    rows = [row for load in loads for row in _beside(load, sizes.trials, program)]
    held = ", ".join(f"{load.sockets:,}: {load.socket_processes}" for load in loads)
    note = (
        f"Processes that hold sockets, {held}. One more answers, each request on a connection of its own; nothing was "
        "lost at the sockets."
    )
    return [Section("Calls while many watch", rows, notes=[note])]


def _beside(load: Load, rounds: int, program: Path) -> Iterator[Row]:
    watched, alone = Taken(), Taken()
    for _ in range(rounds):
        _ask(load, program, watched)
        _ask(replace(load, sockets=0, processes=load.socket_processes), program, alone)
    other = "without sockets"
    for path in _PATHS:
        what = f"`GET {path}`, {load.sockets:,} sockets with {_RATE} frames/s"
        yield latencies(what, other, watched.seconds[path], alone.seconds[path])
        yield compared("… CPU of who answers (ms)", other, watched.cpu[path], alone.cpu[path])


def _ask(load: Load, program: Path, found: Taken) -> None:
    """Ask again and again while frames are published. Raises TrialFailed when a socket lost one."""
    with opened(SERVERS["ours"](say), load, program) as cast:
        answers = who_answers(family(cast.server), cast.stage.port)
        caller = Caller(cast.stage.port)
        cast.publish()
        until = time.monotonic() + load.seconds
        while time.monotonic() < until:
            for path in _PATHS:
                found.ask(caller, answers, path, path)
                caller.close()  # the next one may be another process's
        cast.published(load)
        cast.whole_report()
