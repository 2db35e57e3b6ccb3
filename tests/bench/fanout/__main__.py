"""`python -m bench.fanout`, with `tests` on the path: this service and its peers under the same load, turn by turn."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from bench.fanout.compare import check, compare
from bench.fanout.report import Found, section
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load
from bench.figures import table
from bench.processes import TrialFailed
from bench.stage import say

from nfctl.programs import ToolMissing


def main(arguments: Sequence[str]) -> int:
    """Measure all and print the table; 1 when something that it takes is missing, or a trial failed."""
    asked = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started is stopped first
        signal.signal(number, lambda told, _: sys.exit(128 + told))
    loads = [
        Load(sockets, rate, asked.seconds, asked.processes) for sockets, rate in product(asked.sockets, asked.rate)
    ]
    try:
        titles, found = compare(dict.fromkeys(loads, asked.servers), asked.rounds)
        shown = section("Many sockets", titles, found)
        print("\n\n".join([table(shown.headings, shown.rows), *shown.notes]))
        if asked.json:
            asked.json.write_text(json.dumps(_records(found), indent=1) + "\n")
        check(found, asked.rounds)
    except (ToolMissing, TrialFailed) as error:
        say(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--sockets", type=int, nargs="+", default=[1000], help="how many are open at once")
    parser.add_argument("--rate", type=int, nargs="+", default=[10], help="frames a second to each")
    parser.add_argument("--seconds", type=int, default=10, help="how long frames are sent")
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS), help="which to compare")
    parser.add_argument("--rounds", type=int, default=3, help="trials of each server, taken in turns")
    parser.add_argument("--processes", type=int, help="SOCKET_PROCESSES of this service, instead of the recommended")
    parser.add_argument("--json", type=Path, help="a file for the figures of every trial")
    return parser


def _records(found: Found) -> list[dict[str, object]]:
    return [
        {"server": name, **asdict(load), "round": number, **asdict(figures)}
        for load, servers in found.items()
        for name, rounds in servers.items()
        for number, figures in enumerate(rounds, start=1)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
