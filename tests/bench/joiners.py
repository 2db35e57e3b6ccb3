"""Joining while many watch: what late joiners and their replays cost the others, and whether they miss anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench.fanout import build
from bench.fanout.publisher import LINES
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Cast, Load, opened
from bench.figures import Row, Section, ratio
from bench.processes import TrialFailed, allow_files, environment, talking
from bench.sizes import Sizes
from bench.stage import KEPT_LINES, say

_RATE = 20
_JOINERS = 10
_OTHER_EVENTS = 10
_STAY_SECONDS = 0.5
_PATIENCE = 60
_HEADINGS = (
    "what",
    "joined",
    "events replayed",
    "p50 / p99 ms of those that stay",
    "beside it",
    "ratio",
    "CPU µs a delivery",
    "beside it",
    "ratio",
    "CPU ms of one that joins",
    "p50 / p99 ms until it has the newest",
)


@contextmanager
def _joining(cast: Cast, program: Path) -> Iterator[dict[str, Any]]:
    """Some come and go in the block; afterwards this says what became of them. Raises TrialFailed."""
    found: dict[str, Any] = {}
    where = ["-host", f"127.0.0.1:{cast.stage.port}", "-path", cast.path]
    command = [str(program), *where, "-joiners", str(_JOINERS), "-stay", f"{_STAY_SECONDS}s", "-whole"]
    with talking(command, environment(), cast.stage.directory / "joiners.log") as joiners:
        joiners.hear(_PATIENCE)
        yield found
        joiners.tell("end")
        found |= joiners.hear(_PATIENCE)
    if found["failure"] or found["wrong"] or not found["joined"]:
        raise TrialFailed(f"Those that join late were not served as they should be: {found}")


def measure(sizes: Sizes) -> list[Section]:
    """With joiners and without, in turns: of a run that begins, and of one with as much as is kept."""
    allow_files(max(sizes.crowds))
    program = build.load_program(say)
    # So many that nothing goes meanwhile: then joiners can be held to miss nothing at all.
    most = KEPT_LINES // LINES
    seconds = min(sizes.seconds, most // _RATE // 2)
    before = (0, most - _RATE * seconds - _OTHER_EVENTS)
    loads = [Load(sockets, _RATE, seconds, kept=kept) for sockets, kept in product(sizes.crowds, before)]
    note = (
        f"{_RATE} frames/s, {_JOINERS} that come again after {_STAY_SECONDS} s on average, with the last id they "
        "have or from the beginning. Nothing was lost, doubled or out of order, at them or at those that stay: each "
        "joiner had every event of the run from there on."
    )
    rows = [_measured(load, sizes.trials, program) for load in loads]
    return [Section("Joining while many watch", rows, _HEADINGS, [note])]


def _measured(load: Load, rounds: int, program: Path) -> Row:
    disturbed: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    joined: list[dict[str, Any]] = []
    for _ in range(rounds):
        with opened(SERVERS["ours"](say), load, program) as cast, _joining(cast, program) as found:
            disturbed.append(cast.carry(load))
        joined.append(found)
        with opened(SERVERS["ours"](say), load, program) as cast:
            alone.append(cast.carry(load))
    return _row(load, joined, disturbed, alone)


def _row(load: Load, joined: list[dict[str, Any]], disturbed: list[dict[str, Any]], alone: list[dict[str, Any]]) -> Row:
    came, replayed = (sum(found[name] for found in joined) for name in ("joined", "replayed"))
    # Whatever a server did more is the joiners', theirs among all that it did for each delivery.
    more = [
        (report["cpu"] * report["deliveries"] - other["cpu"] * other["deliveries"]) / found["joined"] / 1000
        for report, other, found in zip(disturbed, alone, joined, strict=True)
    ]
    (p50, p99, cpu), (other_p50, other_p99, other_cpu) = (
        [median(report[name] for report in reports) for name in ("p50_ms", "p99_ms", "cpu")]
        for reports in (disturbed, alone)
    )
    return (
        f"`since=` while {load.sockets:,} watch, {load.kept:,} events before",
        f"{came:,}",
        f"{replayed:,}",
        f"{p50:.1f} / {p99:.1f}",
        f"{other_p50:.1f} / {other_p99:.1f} without them",
        f"{ratio(p50, other_p50)} / {ratio(p99, other_p99)}",
        f"{cpu:.1f}",
        f"{other_cpu:.1f} without them",
        ratio(cpu, other_cpu),
        # Of thousands that watch, what the joiners cost is within what rounds differ by.
        f"{median(more):.1f}" if min(more) > max(more) / 2 else "–",
        " / ".join(f"{median(found[name] for found in joined):.1f}" for name in ("p50_ms", "p99_ms")),
    )
