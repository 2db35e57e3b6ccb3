"""Status under load: what `GET /status` takes while many sockets have frames, beside the same without any socket."""

import time
from pathlib import Path

from bench.caller import API, Caller
from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened
from bench.figures import Section, latencies
from bench.processes import allow_files
from bench.sizes import Sizes
from bench.stage import say

_RATE = 20
# A request each so often: they are to meet the load, not to be it.
_GAP_SECONDS = 0.02


def measure(sizes: Sizes) -> list[Section]:
    """With sockets and without, in turns."""
    allow_files(sizes.viewers)
    program = build.load_program(say)
    load = Load(sizes.viewers, _RATE, sizes.seconds)
    watched: list[float] = []
    alone: list[float] = []
    for _ in range(sizes.rounds):
        watched += _answers(load, program)
        alone += _answers(Load(0, _RATE, sizes.seconds), program)
    what = f"`GET /status`, {sizes.viewers:,} sockets with {_RATE} frames/s"
    note = (
        f"Socket processes: {load.socket_processes}. One more answers, each request on a connection of its own; "
        "nothing was lost at the sockets."
    )
    return [Section("Status while many watch", [latencies(what, "without sockets", watched, alone)], notes=[note])]


def _answers(load: Load, program: Path) -> list[float]:
    """The seconds of each answer while frames are published. Raises TrialFailed when a socket lost one."""
    with opened(SERVERS["ours"](say), load, program) as cast:
        caller = Caller(cast.stage.port)
        found = []
        cast.publish()
        until = time.monotonic() + load.seconds
        while time.monotonic() < until:
            found.append(caller.get(f"{API}/status"))
            caller.close()  # the next one may be another process's
            time.sleep(_GAP_SECONDS)
        cast.published(load)
        cast.whole_report()
    return found
