"""Calls under load: what they take while many sockets have frames, beside the same without any socket."""

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
_PATHS = ("/healthz", f"{API}/status")
# A request each so often: they are to meet the load, not to be it.
_GAP_SECONDS = 0.02


def measure(sizes: Sizes) -> list[Section]:
    """With sockets and without, in turns."""
    allow_files(sizes.viewers)
    program = build.load_program(say)
    load = Load(sizes.viewers, _RATE, sizes.seconds)
    watched: dict[str, list[float]] = {path: [] for path in _PATHS}
    alone: dict[str, list[float]] = {path: [] for path in _PATHS}
    for _ in range(sizes.rounds):
        _ask(load, program, watched)
        _ask(Load(0, _RATE, sizes.seconds), program, alone)
    rows = [
        latencies(
            f"`GET {path}`, {sizes.viewers:,} sockets with {_RATE} frames/s",
            "without sockets",
            watched[path],
            alone[path],
        )
        for path in _PATHS
    ]
    note = (
        f"Socket processes: {load.socket_processes}. One more answers, each request on a connection of its own; "
        "nothing was lost at the sockets."
    )
    return [Section("Calls while many watch", rows, notes=[note])]


def _ask(load: Load, program: Path, found: dict[str, list[float]]) -> None:
    """Note the seconds of each answer while frames are published. Raises TrialFailed when a socket lost one."""
    with opened(SERVERS["ours"](say), load, program) as cast:
        caller = Caller(cast.stage.port)
        cast.publish()
        until = time.monotonic() + load.seconds
        while time.monotonic() < until:
            for path, seconds in found.items():
                seconds.append(caller.get(path))
                caller.close()  # the next one may be another process's
                time.sleep(_GAP_SECONDS)
        cast.published(load)
        cast.whole_report()
