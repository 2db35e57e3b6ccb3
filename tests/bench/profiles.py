"""Profiles: where the time of each slow place goes, by whose code it is spent in.

Each loop of `bench.loops` runs in a process of its own (`python -m bench.profiles LOOP FEW MANY`), once to warm up and
then under cProfile with two counts; the difference is shared out, so that what comes before the loop cancels out.
"""

import cProfile
import json
import pstats
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Row, Section
from bench.instructions import loop_environment
from bench.loops import CHUNK_LINES, LOOPS
from bench.processes import said
from bench.sizes import Sizes
from bench.stage import directory, redis_server, settings_alone

_ROOT = Path(__file__).parents[2]
_PATIENCE = 600
_SHOWN = 6
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_IMPORTED = ("web.wsgi", "nfctl.cli", "worker.app")
_STANDARD = "the standard library"
_STANDARD_NAMES = {name.lstrip("_") for name in sys.stdlib_module_names} | {"site", "encodings", "sitecustomize"}
_HEADINGS = ("place", "takes, profiled (µs)", "whose code the time is spent in")
_NOTE = (
    "cProfile, and for imports Python's own clock of them, each in a process of its own. A profiler makes what is "
    "measured slower, and Python's own calls most; what is written in C counts for whoever calls it."
)

Function = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A loop by its name in `bench.loops`, what one turn of it is, and a small count and a large one."""

    loop: str
    title: str
    counts: tuple[int, int]


_PLACES = (
    Place("take", "A line of the pipeline's own, from the log's bytes to an event's", (CHUNK_LINES, 40 * CHUNK_LINES)),
    Place(
        "follow_pod",
        f"A line of a pod, from the API server's bytes to a record, {CHUNK_LINES} a chunk",
        (CHUNK_LINES, 40 * CHUNK_LINES),
    ),
    Place("follow_pod_singly", "… each in a chunk of its own", (CHUNK_LINES, 40 * CHUNK_LINES)),
    Place("append", "An event of five lines appended to a feed", (100, 2_100)),
    Place("replay", "An event of five lines replayed to one that joins late", (2_000, 22_000)),
    Place("post", "POST /run, inside the web process", (100, 2_100)),
    Place("status", "GET /status, inside the web process", (100, 2_100)),
    Place("join", "A socket opened, inside the process that holds it, up to its first frame", (100, 1_100)),
    Place("history", "GET /history of 100 runs, inside the web process", (100, 1_100)),
)


def measure(_sizes: Sizes) -> list[Section]:
    """A row for each place, and one for each program's imports."""
    with directory() as here, redis_server(here) as (url, _):
        profiled = [_profiled(place, url) for place in _PLACES]
    return [Section("Where the time goes", [*profiled, *map(_imported, _IMPORTED)], _HEADINGS, [_NOTE])]


def _profiled(place: Place, redis_url: str) -> Row:
    command = [sys.executable, "-m", "bench.profiles", place.loop, *map(str, place.counts)]
    spent, _ = said(command, loop_environment(redis_url), _PATIENCE)
    return _row(place.title, json.loads(spent))


def main(arguments: Sequence[str]) -> None:
    """Say what one turn of a loop takes, in seconds by room, as JSON."""
    loop, few, many = arguments[0], *map(int, arguments[1:])
    LOOPS[loop](few)
    small, large = (_spent(loop, count) for count in (few, many))
    print(json.dumps({room: (seconds - small.get(room, 0.0)) / (many - few) for room, seconds in large.items()}))


def _spent(loop: str, count: int) -> dict[str, float]:
    """Seconds by room."""
    profile = cProfile.Profile()
    profile.runcall(LOOPS[loop], count)
    functions: Mapping[Function, tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]]
    functions = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # what it is made of is not in its stub
    spent: dict[str, float] = defaultdict(float)
    for (file, _line, name), (_calls, _primitive, own, _whole, callers) in functions.items():
        if file != "~":
            spent[_room(file)] += own
        elif "recv" in name or "poll" in name:
            spent["waiting for Redis"] += own
        else:  # written in C: it is whoever called it that spends this
            for (caller, _, _), (_, _, share, _) in callers.items():
                spent[_room(caller)] += share
    return spent


def _room(file: str) -> str:
    """Whose code a file is: a module of ours, or a package."""
    path = Path(file)
    if path.is_relative_to(_ROOT) and ".venv" not in path.parts:
        return f"`{path.relative_to(_ROOT).with_suffix('')}`".replace("/", ".")
    if "site-packages" in path.parts:
        return path.parts[path.parts.index("site-packages") + 1].removesuffix(".py")
    return _STANDARD


def _imported(module: str) -> Row:
    """What the first import of a program's module takes, by package."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    _, told = said(command, settings_alone(REDIS_URL="redis://127.0.0.1:6379/0"), _PATIENCE)
    spent: dict[str, float] = defaultdict(float)
    for took, name in _IMPORT.findall(told):
        spent[_owner(name.split(".")[0])] += int(took) / 1e6
    return _row(f"`import {module}`", spent)


def _owner(package: str) -> str:
    """Whose an imported package is."""
    if (_ROOT / package).is_dir():
        return "ours"
    return _STANDARD if package.lstrip("_") in _STANDARD_NAMES else package


def _row(place: str, spent: Mapping[str, float]) -> Row:
    """The whole, and the greatest shares of it."""
    whole = sum(spent.values())
    ordered = sorted(spent.items(), key=lambda pair: -pair[1])[:_SHOWN]
    shares = ", ".join(f"{room} {100 * seconds / whole:.0f}%" for room, seconds in ordered)
    return place, f"{1e6 * whole:,.0f}" if whole > 1e-4 else f"{1e6 * whole:.1f}", shares


if __name__ == "__main__":
    main(sys.argv[1:])
