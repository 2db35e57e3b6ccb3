"""Figures: what is said of many measurements, and tables where each row stands beside something else."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.plot import Plot

Row = tuple[str, ...]
"""What was measured, of the service, of what stands beside it, and the ratio of the two."""

LAGS = "lags"

HEADINGS = ("what", "the service", "beside it", "ratio")


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report: a table, words below it, and plots by the names of their files."""

    title: str
    rows: Sequence[Row]
    headings: Row = HEADINGS
    notes: Sequence[str] = ()
    plots: Mapping[str, Plot] = field(default_factory=dict)


def table(headings: Row, rows: Iterable[Row]) -> str:
    """In Markdown; the first column to the left, all others to the right."""
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share `q` of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def milliseconds(seconds: Sequence[float]) -> str:
    """Their p50 and p99."""
    return f"{1000 * quantile(seconds, 0.5):.1f} / {1000 * quantile(seconds, 0.99):.1f}"


def latencies(what: str, other: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    """A row of seconds, told as p50 and p99 in milliseconds."""
    return f"{what} (ms, p50 / p99)", milliseconds(ours), f"{milliseconds(theirs)} {other}", ratios(ours, theirs)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Those of their p50 and p99."""
    return " / ".join(f"{quantile(ours, q) / quantile(theirs, q):.1f}" for q in (0.5, 0.99))


def compared(what: str, other: str, ours: Sequence[float], theirs: Sequence[float], form: str = "{:.2f}") -> Row:
    """A row of two medians in that form."""
    mine, his = statistics.median(ours), statistics.median(theirs)
    return what, form.format(mine), f"{form.format(his)} {other}", ratio(mine, his)


def marked(said: str, *, lags: bool) -> str:
    """Marked where it was of a server that could not keep up: its frames share more writes, and so cost less."""
    return f"{said} ({LAGS})" if lags else said


def ratio(ours: float, theirs: float) -> str:
    """The one to the other; a dash when there is nothing to compare with."""
    if theirs <= 0:
        return "–"
    value = ours / theirs
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
