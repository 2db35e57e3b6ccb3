"""Instructions of the hot loops, counted by Callgrind: they do not depend on what else the machine does."""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Row, Section, ratio
from bench.loops import CHUNK_LINES, VIEWERS
from bench.processes import TrialFailed, environment, said
from bench.sizes import Sizes
from bench.stage import directory, redis_server
from redis import Redis

_COLLECTED = re.compile(r"Collected : (\d+)")
_PATIENCE = 600
_NOTE = (
    "Each loop runs with two counts and the difference is shared out, so that the start cancels out. The instructions "
    "are those of the process alone: neither the kernel's nor Redis' are among them."
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A loop of ours and what stands beside it, by the names in `bench.loops`, with a small count and a large one."""

    what: str
    loop: str
    other: str
    beside: str
    counts: tuple[int, int]


_PAIRS = (
    Pair(f"A delivery, {VIEWERS} viewers of a hub", "deliver", "a bare `send`", "send", (10 * VIEWERS, 60 * VIEWERS)),
    Pair(
        "A line of the pipeline's own, from the log's bytes to an event's",
        "take",
        "decoded and `orjson.dumps`",
        "dump",
        (CHUNK_LINES, 6 * CHUNK_LINES),
    ),
    Pair(
        "A line that tells of a task",
        "take_told",
        "decoded and `orjson.dumps`",
        "dump",
        (CHUNK_LINES, 6 * CHUNK_LINES),
    ),
    Pair("An event appended to a feed, in the caller", "append", "PUBLISH", "publish", (50, 250)),
)


def measure(_sizes: Sizes) -> list[Section]:
    """One row a loop. Raises TrialFailed where there is no valgrind."""
    if shutil.which("valgrind") is None:
        raise TrialFailed("There is no valgrind, which counts instructions: install it (apt-get install valgrind).")
    with directory() as here, redis_server(here) as (url, _):
        rows = [_row(pair, url, here) for pair in _PAIRS]
    return [Section("Instructions", rows, notes=[_NOTE])]


def _row(pair: Pair, redis_url: str, here: Path) -> Row:
    mine, his = (_each(loop, pair.counts, redis_url, here) for loop in (pair.loop, pair.beside))
    return pair.what, f"{mine:,.0f}", f"{his:,.0f} {pair.other}", ratio(mine, his)


def _each(loop: str, counts: tuple[int, int], redis_url: str, here: Path) -> float:
    """Instructions of one turn of a loop."""
    few, many = counts
    _python(loop, few, redis_url, [])  # what is imported is compiled, once
    small, large = (_collected(loop, count, redis_url, here) for count in counts)
    return (large - small) / (many - few)


def _collected(loop: str, count: int, redis_url: str, here: Path) -> int:
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={here / 'callgrind.out'}"]
    counted = _python(loop, count, redis_url, valgrind)
    found = _COLLECTED.search(counted)
    if found is None:
        raise TrialFailed(f"Callgrind did not count: {counted[-300:]}")
    return int(found[1])


def loop_environment(redis_url: str) -> dict[str, str]:
    """That of a loop's process, with a Redis that is empty.

    Names are hashed in one way, or dictionaries would differ from run to run.
    """
    Redis.from_url(redis_url).flushall()
    return environment() | {"BENCH_REDIS": redis_url, "PYTHONHASHSEED": "0"}


def _python(loop: str, count: int, redis_url: str, before: list[str]) -> str:
    """What a loop's process says of itself, and whoever counts its instructions."""
    _, errors = said(
        [*before, sys.executable, "-m", "bench.loops", loop, str(count)], loop_environment(redis_url), _PATIENCE
    )
    return errors
