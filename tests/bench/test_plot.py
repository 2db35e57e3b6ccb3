"""A plot is whole SVG, every point of it lies within its frame, and ticks are where a person expects them."""

import xml.etree.ElementTree as ElementTree

from bench.plot import Plot, Points, svg

_SVG = "{http://www.w3.org/2000/svg}"


def _drawn(lines: dict[str, Points], *, even: bool = False) -> ElementTree.Element:
    text = svg(Plot("A & B", "sockets", "µs", lines, even_x=even, even_y=even))
    return ElementTree.fromstring(text)  # noqa: S314 - made just now


def _texts(drawn: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in drawn.iter(f"{_SVG}text")]


def test_points_lie_within_the_frame() -> None:
    """The lowest and the highest too, on both kinds of axis."""
    for even in (False, True):
        drawn = _drawn({"ours": [(10, 0.4), (1_000, 72), (10_000, 9_000)], "theirs": [(1, 1)]}, even=even)
        frame = drawn.find(f"{_SVG}rect")
        assert frame is not None
        left, top, width, height = (float(frame.attrib[name]) for name in ("x", "y", "width", "height"))
        circles = list(drawn.iter(f"{_SVG}circle"))
        assert len(circles) == 4
        for circle in circles:
            assert left - 0.1 <= float(circle.attrib["cx"]) <= left + width + 0.1
            assert top - 0.1 <= float(circle.attrib["cy"]) <= top + height + 0.1


def test_axes_grow_by_tens_unless_even() -> None:
    """Each power of ten has a tick; an even axis has round steps from 0."""
    assert {"1", "10", "100", "1,000"} <= set(_texts(_drawn({"ours": [(1, 10), (1_000, 100)]})))
    assert {"0", "1", "2", "3", "4"} <= set(_texts(_drawn({"ours": [(1, 1), (4, 4)]}, even=True)))


def test_what_has_no_logarithm_is_left_out() -> None:
    """A 0 is not drawn on an axis by tens."""
    assert len(list(_drawn({"ours": [(0, 5), (10, 0), (10, 5)]}).iter(f"{_SVG}circle"))) == 1


def test_one_size_alone_can_be_drawn() -> None:
    """A line of one point has axes too."""
    for even in (False, True):
        assert len(list(_drawn({"ours": [(100, 100)]}, even=even).iter(f"{_SVG}circle"))) == 1
