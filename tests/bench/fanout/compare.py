"""Compares servers: each load in turns, and what that makes as a part of a report."""

from collections.abc import Mapping, Sequence
from itertools import product

from bench.fanout import build
from bench.fanout.report import section
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Figures, Load, run_trial
from bench.figures import Section
from bench.processes import TrialFailed, allow_files
from bench.sizes import Sizes
from bench.stage import say

from nfctl import tools

_RATE = 20

Titles = Mapping[str, str]
Found = dict[Load, dict[str, list[Figures]]]


def measure(sizes: Sizes) -> list[Section]:
    """All servers under one load. Raises ToolMissing and TrialFailed."""
    titles, found = compare(list(SERVERS), [Load(sizes.viewers, _RATE, sizes.seconds)], sizes.rounds)
    if not complete(found, sizes.rounds):
        raise TrialFailed("Not every trial could be carried out.")
    if not whole(found):
        raise TrialFailed("This service has lost, doubled or disordered frames, or sockets.")
    return [section(titles, found)]


def compare(names: Sequence[str], loads: Sequence[Load], rounds: int) -> tuple[Titles, Found]:
    """The titles of these servers, and the figures of each trial that did not fail. Raises ToolMissing and TrialFailed.

    Servers take turns within each load, so that whatever else the machine does hits them alike.
    """
    allow_files(max(load.sockets for load in loads))
    tools.redis_server(say)
    program = build.load_program(say)
    servers = {name: SERVERS[name](say) for name in names}
    found: Found = {load: {name: [] for name in servers} for load in loads}
    for load, number, name in product(loads, range(1, rounds + 1), servers):
        try:
            figures = run_trial(servers[name], load, program)
        except TrialFailed as error:  # it must not cost what the others found
            said = f"failed: {error}"
        else:
            found[load][name].append(figures)
            said = _brief(figures)
        say(f"{load.sockets} × {load.rate}, round {number}, {name}: {said}")
    return {name: server.title for name, server in servers.items()}, found


def complete(found: Found, rounds: int) -> bool:
    """Whether no trial of any server failed."""
    return all(len(trials) == rounds for servers in found.values() for trials in servers.values())


def whole(found: Found) -> bool:
    """Whether this service lost, doubled and disordered nothing in any trial."""
    return all(one.whole for servers in found.values() for one in servers.get("ours", ()))


def _brief(figures: Figures) -> str:
    said = (
        f"{figures.delivered_per_second:,.0f}/s, {figures.cpu:.1f} µs each, p99 {figures.p99:.1f} ms, "
        f"{figures.lost} lost, {figures.alive} alive"
    )
    return f"{said} ({figures.trouble})" if figures.trouble else said
