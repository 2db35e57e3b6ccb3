"""Growth with sockets, and with the processes that hold them: CPU a delivery, beside the Go library's."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Figures, Load, run_trial
from bench.figures import Row, Section, marked, ratio
from bench.plot import Plot
from bench.processes import TrialFailed, allow_files
from bench.sizes import Sizes
from bench.stage import say

_RATE = 10
_PROCESSES_RATE = 20
_HEADINGS = (
    "CPU µs a delivery",
    "p50 / p99 ms",
    "lost / doubled / disordered",
    "KiB a socket",
    "the Go library: CPU µs",
    "p50 / p99 ms",
    "CPU ratio",
)


def by_sockets(sizes: Sizes) -> list[Section]:
    """More and more sockets at one rate."""
    allow_files(max(sizes.sockets))
    program = build.load_program(say)
    found = {
        sockets: [_pair(Load(sockets, _RATE, sizes.seconds), program) for _ in range(sizes.trials)]
        for sockets in sizes.sockets
    }
    rows = [(f"{sockets:,}", *_row(pairs)) for sockets, pairs in found.items()]
    plot = _plot("CPU a delivery as sockets grow", "sockets", found)
    held = ", ".join(str(Load(sockets, _RATE, sizes.seconds).socket_processes) for sockets in found)
    note = f"{_RATE} frames/s; socket processes: {held}. With few sockets what a server does anyway is shared by few."
    return [Section("More sockets", rows, ("sockets", *_HEADINGS), [note], {"sockets": plot})]


def by_processes(sizes: Sizes) -> list[Section]:
    """The same sockets in more and more processes."""
    allow_files(sizes.viewers)
    program = build.load_program(say)
    found: dict[int, list[tuple[Figures, Figures]]] = {processes: [] for processes in sizes.processes}
    for _ in range(sizes.trials):
        for processes, pairs in found.items():
            pairs.append(_pair(Load(sizes.viewers, _PROCESSES_RATE, sizes.seconds, processes), program))
    rows = [(str(processes), *_row(pairs)) for processes, pairs in found.items()]
    plot = _plot("CPU a delivery as socket processes grow", "socket processes", found, even=True)
    note = f"{sizes.viewers:,} sockets, {_PROCESSES_RATE} frames/s. The Go library is one process, whatever the number."
    return [Section("More socket processes", rows, ("socket processes", *_HEADINGS), [note], {"processes": plot})]


def _pair(load: Load, program: Path) -> tuple[Figures, Figures]:
    """The service and the library under the same load, one after the other."""
    ours = run_trial(SERVERS["ours"](say), load, program)
    theirs = run_trial(SERVERS["centrifuge"](say), load, program)
    if not ours.whole:
        raise TrialFailed(f"Of {load.sockets:,} sockets {ours.alive:,} are alive, and frames lost: {ours.lost:,}.")
    what = f"{load.sockets:,} sockets, {load.socket_processes} processes"
    say(f"{what}: {ours.cpu:.1f} µs, the library {theirs.cpu:.1f} µs")
    return ours, theirs


def _row(pairs: Sequence[tuple[Figures, Figures]]) -> Row:
    ours, theirs = zip(*pairs, strict=True)
    faults = (sum(getattr(one, name) for one in ours) for name in ("lost", "doubled", "disordered"))
    return (
        f"{_median(ours, 'cpu'):.1f}",
        f"{_median(ours, 'p50'):.1f} / {_median(ours, 'p99'):.1f}",
        " / ".join(f"{count:,}" for count in faults),
        f"{_median(ours, 'kib'):.0f}",
        f"{_median(theirs, 'cpu'):.1f}",
        f"{_median(theirs, 'p50'):.1f} / {_median(theirs, 'p99'):.1f}",
        marked(ratio(_median(ours, "cpu"), _median(theirs, "cpu")), lags=any(one.lags for one in (*ours, *theirs))),
    )


def _plot(title: str, x: str, found: dict[int, list[tuple[Figures, Figures]]], *, even: bool = False) -> Plot:
    lines = {
        name: [(float(size), _median([pair[which] for pair in pairs], "cpu")) for size, pairs in found.items()]
        for which, name in enumerate(("this service", "the Go library"))
    }
    return Plot(title, x, "CPU µs a delivery", lines, even_x=even, even_y=even)


def _median(trials: Sequence[Figures], name: str) -> float:
    return float(median(getattr(one, name) for one in trials))
