"""`python -m bench.fanout`, with `tests` on the path: this service and its peers under the same load, turn by turn."""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from bench.fanout import build
from bench.fanout.report import table
from bench.fanout.servers import SERVERS, Server
from bench.fanout.trial import Figures, Load, run_trial
from bench.processes import TrialFailed, allow_files

from nfctl import tools
from nfctl.programs import ToolMissing

Found = dict[Load, dict[str, list[Figures]]]


def main(arguments: Sequence[str]) -> int:
    """Measure all and print the table; 1 when something that it takes is missing, or a trial failed."""
    asked = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started is stopped first
        signal.signal(number, lambda told, _: sys.exit(128 + told))
    loads = [
        Load(sockets, rate, asked.seconds, asked.processes) for sockets, rate in product(asked.sockets, asked.rate)
    ]
    try:
        allow_files(max(asked.sockets))
        tools.redis_server(_say)
        program = build.load_program(_say)
        servers = {name: SERVERS[name](_say) for name in asked.servers}
    except (ToolMissing, TrialFailed) as error:
        _say(str(error))
        return 1
    found = _measure(servers, loads, asked.rounds, program)
    print(table({name: server.title for name, server in servers.items()}, found))
    if asked.json:
        asked.json.write_text(json.dumps(_records(found), indent=1) + "\n")
    whole = all(len(rounds) == asked.rounds for by_server in found.values() for rounds in by_server.values())
    kept = all(one.whole for servers in found.values() for one in servers.get("ours", ()))
    if not kept:
        _say("This service has lost, doubled or disordered frames, or sockets.")
    return 0 if whole and kept else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--sockets", type=int, nargs="+", default=[1000], help="how many are open at once")
    parser.add_argument("--rate", type=int, nargs="+", default=[20], help="frames a second to each")
    parser.add_argument("--seconds", type=int, default=10, help="how long frames are sent")
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS), help="which to compare")
    parser.add_argument("--rounds", type=int, default=3, help="trials of each server, taken in turns")
    parser.add_argument("--processes", type=int, help="SOCKET_PROCESSES of this service, instead of the recommended")
    parser.add_argument("--json", type=Path, help="a file for the figures of every trial")
    return parser


def _measure(servers: Mapping[str, Server], loads: Sequence[Load], rounds: int, program: Path) -> Found:
    """Servers take turns within each load, so that whatever else the machine does hits them alike."""
    found: Found = {load: {name: [] for name in servers} for load in loads}
    for load, number, name in product(loads, range(1, rounds + 1), servers):
        try:
            figures = run_trial(servers[name], load, program)
        except TrialFailed as error:  # it must not cost what the others found
            said = f"failed: {error}"
        else:
            found[load][name].append(figures)
            said = _brief(figures)
        _say(f"{load.sockets} × {load.rate}, round {number}, {name}: {said}")
    return found


def _brief(figures: Figures) -> str:
    said = (
        f"{figures.delivered_per_second:,.0f}/s, {figures.cpu:.1f} µs each, p99 {figures.p99:.1f} ms, "
        f"{figures.lost} lost, {figures.alive} alive"
    )
    return f"{said} ({figures.trouble})" if figures.trouble else said


def _records(found: Found) -> list[dict[str, object]]:
    return [
        {"server": name, **asdict(load), "round": number, **asdict(figures)}
        for load, servers in found.items()
        for name, rounds in servers.items()
        for number, figures in enumerate(rounds, start=1)
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
