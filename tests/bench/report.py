"""`python -m bench.report`, with `tests` on the path: all that is measured on this machine, as Markdown and plots.

Each part is printed as it is measured, and takes its place in `docs/performance.md` if nothing went amiss and its sizes
were the usual ones.
"""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from bench import (
    burst,
    filters,
    followers,
    growth_history,
    growth_lines,
    growth_web,
    instructions,
    joiners,
    line,
    places,
    pod,
    profiles,
    redis_cost,
    stalled,
    startup,
    status,
    submit,
    wire,
)
from bench.document import DOCS, check, markdown, moment, put
from bench.fanout import compare
from bench.figures import Section
from bench.sizes import SMALL, Sizes
from bench.stage import say

PARTS: Mapping[str, Callable[[Sizes], Iterable[Section]]] = {
    "fanout": compare.by_sockets,
    "line": line.measure,
    "burst": burst.measure,
    "submit": submit.measure,
    "status": status.measure,
    "joiners": joiners.measure,
    "followers": followers.measure,
    "stalled": stalled.measure,
    "filters": filters.measure,
    "pod": pod.measure,
    "redis": redis_cost.measure,
    "wire": wire.measure,
    "startup": startup.measure,
    "instructions": instructions.measure,
    "profiles": profiles.measure,
    "places": places.measure,
    "growth-lines": growth_lines.measure,
    "growth-history": growth_history.measure,
    "growth-processes": compare.by_processes,
    "growth-web": growth_web.measure,
}


def main(arguments: Sequence[str]) -> int:
    """Measure the parts that are asked for; 1 when one could not be measured."""
    asked = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started is stopped first
        signal.signal(number, lambda told, _: sys.exit(128 + told))
    given = {item.name: getattr(asked, item.name) for item in fields(Sizes)}
    sizes = replace(SMALL if asked.small else Sizes(), **{name: size for name, size in given.items() if size})
    into = asked.into or (DOCS if sizes == Sizes() else None)
    if into is not None:
        check(into)
    whole = True
    for name in asked.only:
        began, when = time.monotonic(), moment()
        try:
            sections = []
            for section in PARTS[name](sizes):
                print(f"## {section.title}\n\n{markdown(section)}\n", flush=True)
                sections.append(section)
            if into is not None:
                for section in sections:
                    put(into, section, when)
        except (Exception, pytest.fail.Exception) as error:  # whatever it is, it must not cost what the others find
            whole = False
            say(f"{name}: {''.join(traceback.format_exception_only(error)).strip()}")
        say(f"{name}: {time.monotonic() - began:.0f} s")
    return 0 if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="which parts")
    parser.add_argument(
        "--into", type=Path, help=f"the folder of the report and its plots; {DOCS}, unless sizes are not the usual ones"
    )
    parser.add_argument("--small", action="store_true", help="small sizes, to see that all works")
    for item in fields(Sizes):
        default = getattr(Sizes(), item.name)
        many = isinstance(default, tuple)
        shown = " ".join(map(str, default)) if many else default
        parser.add_argument(f"--{item.name}", type=int, nargs="+" if many else None, help=f"instead of {shown}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
