"""Plots as SVG: a few lines over one axis, readable on light and on dark ground."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 28, 74, 56
# Apart from one another for those who see colours differently too; each line also has a dash of its own.
_COLOURS = (("#0063b5", "#5db0ff"), ("#b34700", "#ff9d5c"), ("#00745a", "#3fd0a8"), ("#8a3ea8", "#d697f0"))
_DASHES = ("", "7 4", "2 4", "9 3 2 3")
_STYLE = "\n".join(
    [
        "text { font: 13px system-ui, sans-serif; fill: #1f2328; }",
        ".title { font-size: 15px; font-weight: 600; }",
        ".frame { fill: none; stroke: #656d76; }",
        ".grid { stroke: #656d76; stroke-opacity: 0.25; }",
        ".line { fill: none; stroke-width: 2; }",
        *(f".s{number} {{ stroke: {light}; }}" for number, (light, _) in enumerate(_COLOURS)),
        *(f".d{number} {{ fill: {light}; }}" for number, (light, _) in enumerate(_COLOURS)),
        "@media (prefers-color-scheme: dark) {",
        "text { fill: #e6edf3; }",
        ".frame, .grid { stroke: #9198a1; }",
        *(f".s{number} {{ stroke: {dark}; }}" for number, (_, dark) in enumerate(_COLOURS)),
        *(f".d{number} {{ fill: {dark}; }}" for number, (_, dark) in enumerate(_COLOURS)),
        "}",
    ]
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines by name. Axes grow by tens unless told to be even: an even x counts in whole steps, an even y from 0."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    even_x: bool = False
    even_y: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where values lie between 0 and 1, and which of them are written."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def svg(plot: Plot) -> str:
    """The whole file. At the most four lines; where an axis grows by tens, what is not above 0 is left out."""
    lines = {name: _shown(plot, points) for name, points in plot.lines.items()}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    across = _even(min(xs), max(xs), least_step=1) if plot.even_x else _by_tens(min(xs), max(xs))
    up = _even(0, max(ys)) if plot.even_y else _by_tens(min(ys), max(ys))
    parts = [*_frame(plot, across, up), *_legend(list(lines))]
    for number, points in enumerate(lines.values()):
        parts += _line(number, [(_x(across.place(x)), _y(up.place(y))) for x, y in points])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(plot.title)}">\n<style>\n{_STYLE}\n</style>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _shown(plot: Plot, points: Points) -> Points:
    return [(x, y) for x, y in points if (plot.even_x or x > 0) and (plot.even_y or y > 0)]


def _by_tens(least: float, most: float) -> _Axis:
    low, high = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
    high = max(high, low + 1)
    ticks = [10.0**power for power in range(low, high + 1)]
    return _Axis(lambda value: (math.log10(value) - low) / (high - low), ticks)


def _even(least: float, most: float, least_step: float = 1e-9) -> _Axis:
    rough = max((most - least) / 5, least_step)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.999)
    first, last = math.floor(least / step), math.ceil(most / step)
    low, high = first * step, max(last, first + 1) * step
    ticks = [number * step for number in range(first, round(high / step) + 1)]
    return _Axis(lambda value: (value - low) / (high - low), ticks)


def _frame(plot: Plot, across: _Axis, up: _Axis) -> Iterator[str]:
    left, right, top, bottom = _x(0), _x(1), _y(1), _y(0)
    yield f'<text class="title" x="{left:.0f}" y="24">{escape(plot.title)}</text>'
    for tick in across.ticks:
        at = _x(across.place(tick))
        yield f'<line class="grid" x1="{at:.1f}" y1="{top:.1f}" x2="{at:.1f}" y2="{bottom:.1f}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 19:.1f}" text-anchor="middle">{_short(tick)}</text>'
    for tick in up.ticks:
        at = _y(up.place(tick))
        yield f'<line class="grid" x1="{left:.1f}" y1="{at:.1f}" x2="{right:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{left - 8:.1f}" y="{at + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
    width, height = right - left, bottom - top
    yield f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    yield f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(plot.x)}</text>'
    middle = (top + bottom) / 2
    turned = f'transform="rotate(-90 18 {middle:.1f})"'
    yield f'<text x="18" y="{middle:.1f}" text-anchor="middle" {turned}>{escape(plot.y)}</text>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    at = float(_LEFT)
    for number, name in enumerate(names):
        yield f'<path class="line s{number}" {_dash(number)}d="M{at:.0f} 48h26"/>'
        yield f'<text x="{at + 32:.0f}" y="52">{escape(name)}</text>'
        at += 60 + 7.5 * len(name)


def _line(number: int, points: Points) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline class="line s{number}" {_dash(number)}points="{path}"/>'
    for x, y in points:
        yield f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'


def _dash(number: int) -> str:
    return f'stroke-dasharray="{_DASHES[number]}" ' if _DASHES[number] else ""


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 10_000 else f"{value:,.6g}"
