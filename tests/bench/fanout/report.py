"""The table: for each load the medians of a server's rounds, beside the Go library."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench.fanout.trial import Figures, Load
from bench.figures import Section, marked
from bench.plot import Plot

Titles = Mapping[str, str]
Servers = dict[str, list[Figures]]
Found = dict[Load, Servers]
"""What was found: the figures of each round, by load and by the server's name."""

OURS = "ours"
GO = ("centrifuge", "centrifuge-delay")
"""Names of the servers whose CPU the others' is divided by."""

_FEWEST = 10_000
"""Deliveries below which the kernel's part, which is counted in ticks of 10 ms, says nothing."""
_HEADINGS = (
    "server",
    "sockets × frames/s",
    "alive",
    "delivered/s",
    "CPU µs",
    "kernel's",
    "÷ Go",
    "÷ Go, delayed",
    "p50 / p99 ms",
    "lost / doubled / disordered",
    "KiB a socket",
    "idle %",
    "Redis µs",
    "client %",
    "elsewhere %",
)


def section(
    title: str, titles: Titles, found: Found, note: str = "", plots: Mapping[str, Plot] | None = None
) -> Section:
    """Counts are sums over rounds, sockets alive the fewest, all else medians; a note and a legend below."""
    rows = [
        _row(titles[name], load, rounds, [_ratio(rounds, servers.get(go)) for go in GO])
        for load, servers in found.items()
        for name, rounds in servers.items()
        if rounds
    ]
    return Section(title, rows, _HEADINGS, [*filter(None, [note]), _legend(found)], plots or {})


def plot(title: str, x: str, titles: Titles, curve: Mapping[int, Servers], *, even: bool = False) -> Plot:
    """CPU a delivery along a curve, of this service and of the Go library."""
    points = {
        titles[name]: [
            (float(size), _median(trials, "cpu")) for size, servers in curve.items() if (trials := servers.get(name))
        ]
        for name in (OURS, *GO)
        if name in titles
    }
    lines = {name: those for name, those in points.items() if those}
    return Plot(title, x, "CPU µs a delivery", lines, even_x=even, even_y=even)


def _legend(found: Found) -> str:
    trials = [one for servers in found.values() for rounds in servers.values() for one in rounds]
    sizes = sorted({one.frame_bytes for one in trials})
    return (
        f"{len(trials)} trials; frames of {' or '.join(map(str, sizes))} bytes. CPU is that of all processes of a "
        "server, user and system, a delivery, what of it was spent in the kernel, and beside that of the Go library "
        "without and with its write delay; latency is from the publisher's stamp to the reading at a socket. Each % is "
        "of one processor: idle with all sockets open, the load client's, and what others on the machine used while "
        "frames were sent. Who *lags* was half a second behind in the end, or lost some: its frames have shared more "
        "writes than those of one that keeps up."
    )


def _row(title: str, load: Load, rounds: Sequence[Figures], ratios: Sequence[str]) -> tuple[str, ...]:
    counts = (sum(getattr(one, name) for one in rounds) for name in ("lost", "doubled", "disordered"))
    return (
        title,
        str(load),
        f"{min(one.alive for one in rounds):,}",
        marked(f"{_median(rounds, 'delivered_per_second'):,.0f}", lags=_lags(rounds)),
        f"{_median(rounds, 'cpu'):.1f}",
        f"{_median(rounds, 'kernel'):.1f}" if _median(rounds, "deliveries") >= _FEWEST else "–",
        *ratios,
        f"{_median(rounds, 'p50'):.1f} / {_median(rounds, 'p99'):.1f}",
        " / ".join(f"{count:,}" for count in counts),
        f"{_median(rounds, 'kib'):.0f}",
        f"{_median(rounds, 'idle_percent'):.1f}",
        f"{_median(rounds, 'redis_cpu'):.1f}",
        f"{_median(rounds, 'client_percent'):.0f}",
        f"{_median(rounds, 'elsewhere_percent'):.0f}",
    )


def _ratio(rounds: Sequence[Figures], go: Sequence[Figures] | None) -> str:
    if not go:
        return ""
    said = f"{_median(rounds, 'cpu') / max(_median(go, 'cpu'), 0.01):.2f}"
    return marked(said, lags=_lags(rounds) or _lags(go))


def _lags(rounds: Sequence[Figures]) -> bool:
    return any(one.lags for one in rounds)


def _median(rounds: Sequence[Figures], name: str) -> float:
    return float(median(getattr(one, name) for one in rounds))
