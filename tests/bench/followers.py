"""Followers: what a change of runs costs where many sockets go from run to run."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened
from bench.figures import Row, Section, ratio
from bench.processes import allow_files
from bench.sizes import Sizes
from bench.stage import say

_RATE, _SECONDS = 20, 2
_HEADINGS = (
    "what",
    "p50 / p99 / most ms",
    "beside it",
    "ratio",
    "CPU µs a delivery",
    "beside it",
    "ratio",
)


def measure(sizes: Sizes) -> list[Section]:
    """The first frames of a run that many follow from the one before, beside those of a run that goes on; in turns."""
    allow_files(max(sizes.crowds))
    program = build.load_program(say)
    rows = [_measured(Load(sockets, _RATE, _SECONDS), sizes.trials, program) for sockets in sizes.crowds]
    note = (
        f"{_RATE} frames/s; those that follow see the run before end, and each frame of the next one, which begins at "
        "that moment, once and in order."
    )
    return [Section("A run begins while many follow", rows, _HEADINGS, [note])]


def _measured(load: Load, rounds: int, program: Path) -> Row:
    changed: list[dict[str, Any]] = []
    same: list[dict[str, Any]] = []
    for _ in range(rounds):
        for to, reports in (("next-run", changed), ("followed", same)):
            with opened(replace(SERVERS["ours"](say), publish_to=to), load, program) as cast:
                reports.append(cast.carry(load))
    (*times, cpu), (*other_times, other_cpu) = (
        [median(report[name] for report in reports) for name in ("p50_ms", "p99_ms", "max_ms", "cpu")]
        for reports in (changed, same)
    )
    return (
        f"The first {_SECONDS} s of a run, {load.sockets:,} follow",
        " / ".join(f"{time:.1f}" for time in times),
        f"{' / '.join(f'{time:.1f}' for time in other_times)} of one that goes on",
        " / ".join(ratio(*pair) for pair in zip(times, other_times, strict=True)),
        f"{cpu:.1f}",
        f"{other_cpu:.1f} of one that goes on",
        ratio(cpu, other_cpu),
    )
