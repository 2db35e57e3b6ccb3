"""Compares servers: each load in turns, and what that makes as a part of a report."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from bench.fanout import build
from bench.fanout.report import GO, OURS, Found, Titles, plot, section
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, run_trial
from bench.figures import Section
from bench.processes import TrialFailed, allow_files
from bench.sizes import Sizes
from bench.stage import say

from nfctl import tools

Plan = Mapping[Load, Sequence[str]]
"""Loads, and the names of the servers that have to carry each."""

_CURVE_RATE = 10
# It takes a subscription each.
_NOT_FOR_MANY = "flask-sock"
_PROCESSES_RATE = 20


def by_sockets(sizes: Sizes) -> Iterator[Section]:
    """More and more sockets, at each rate. Raises ToolMissing and TrialFailed, at last what went wrong at all."""
    loads = [Load(sockets, rate, sizes.seconds) for sockets, rate in product(sizes.sockets, sizes.rates)]
    few = [name for name in SERVERS if name != _NOT_FOR_MANY]
    titles, found = compare(
        {load: list(SERVERS) if load.sockets <= sizes.viewers else few for load in loads}, sizes.trials
    )
    curve = {load.sockets: servers for load, servers in found.items() if load.rate == _CURVE_RATE}
    drawn = plot(f"CPU a delivery as sockets grow, {_CURVE_RATE} frames/s", "sockets", titles, curve)
    held = ", ".join(f"{load.sockets:,}: {load.socket_processes}" for load in loads if load.rate == sizes.rates[0])
    yield section(
        "Many sockets", titles, found, f"Processes of this service that hold sockets, {held}.", {"sockets": drawn}
    )
    check(found, sizes.trials)


def by_processes(sizes: Sizes) -> Iterator[Section]:
    """The same sockets in more and more processes. Raises as the other."""
    loads = [Load(sizes.viewers, _PROCESSES_RATE, sizes.seconds, processes) for processes in sizes.processes]
    titles, found = compare({load: [OURS, GO[0]] for load in loads}, sizes.trials)
    curve = {load.socket_processes: servers for load, servers in found.items()}
    drawn = plot("CPU a delivery as socket processes grow", "socket processes", titles, curve, even=True)
    note = "The Go library is one process, whatever the number."
    yield section("More socket processes", titles, found, note, {"processes": drawn})
    check(found, sizes.trials)


def compare(plan: Plan, rounds: int) -> tuple[Titles, Found]:
    """The titles of these servers, and the figures of each trial that did not fail. Raises ToolMissing and TrialFailed.

    Servers take turns within each load, so that whatever else the machine does hits them alike.
    """
    allow_files(max(load.sockets for load in plan))
    tools.redis_server(say)
    program = build.load_program(say)
    servers = {name: SERVERS[name](say) for name in SERVERS if any(name in names for names in plan.values())}
    found: Found = {load: {name: [] for name in names} for load, names in plan.items()}
    for load, trials in found.items():
        for number, name in product(range(1, rounds + 1), trials):
            try:
                figures = run_trial(servers[name], load, program)
            except TrialFailed as error:  # it must not cost what the others found
                said = f"failed: {error}"
            else:
                trials[name].append(figures)
                said = figures.brief
            say(f"{load}, round {number}, {name}: {said}")
    return {name: server.title for name, server in servers.items()}, found


def check(found: Found, rounds: int) -> None:
    """Raises TrialFailed when a trial failed, or this service lost, doubled or disordered anything in any.

    That other servers than the Go library's fail under a load is a finding, which their missing rows tell.
    """
    needed = [trials for servers in found.values() for name, trials in servers.items() if name in (OURS, *GO)]
    if any(len(trials) < rounds for trials in needed):
        raise TrialFailed("Not every trial could be carried out.")
    if not all(one.whole for servers in found.values() for one in servers.get(OURS, ())):
        raise TrialFailed("This service has lost, doubled or disordered frames, or sockets.")
