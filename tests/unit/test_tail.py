"""The alignment of a resumed log: whatever is printed and wherever it is cut, each line once and in order."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.kube.tail import LONGEST_LINE, Line, LineSplitter, Tail

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def stamp(nanoseconds: int) -> str:
    """A time as the kubelet writes it."""
    at = START + timedelta(seconds=nanoseconds // 10**9)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09}Z"


def served(log: Sequence[Line], since: str | None) -> list[Line]:
    """What the kubelet gives of a log from a time on: it looks at each line by itself."""
    return [line for line in log if since is None or line.timestamp >= since.replace("Z", ".000000000Z")]


@st.composite
def logs(draw: st.DrawFn) -> list[Line]:
    """Lines with few different words and times: many are equal, some stand far apart."""
    steps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 40, 10**9, 7 * 10**9]), min_size=1, max_size=60))
    words = draw(st.lists(st.sampled_from([b"", b"a", b"b"]), min_size=len(steps), max_size=len(steps)))
    lines, now = [], 0
    for step, word in zip(steps, words, strict=True):
        now += step
        lines.append(Line(stamp(now), word))
    return lines


@given(logs(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_a_log_cut_anywhere_is_read_once(log: list[Line], cuts: list[tuple[int, int]]) -> None:
    """A stream may end after any line, while more is being written; each reader begins with the last one's cursor."""
    read: list[Line] = []
    cursor = None
    for written, given_out in [*cuts, (len(log), len(log)), (len(log), len(log))]:
        tail = Tail(cursor)
        since = tail.since
        tail.resume()
        there = log[: max(written, len(read))]
        for line in served(there, since)[: max(given_out, 0)]:
            read += tail.take(line)
        # A stream that ended before the old place came gives nothing, and no gap.
        later = tail.settle()
        assert later == []
        cursor = tail.cursor
        assert cursor["lines"] == len(read)
    assert read == log


@given(st.lists(st.integers(-2_000, 3_000), min_size=1, max_size=60), st.integers(0, 60))
def test_a_clock_that_steps_back_loses_nothing(steps: list[int], cut: int) -> None:
    """Steps back of five seconds in all are within the slack; lines of their own words are found by them."""
    now, log = 10**10, []
    newest = now
    for number, step in enumerate(steps):
        now = max(now + step * 10**6, newest - 5 * 10**9)
        newest = max(newest, now)
        log.append(Line(stamp(now), b"line %d" % number))
    first = Tail(None)
    read = [new for line in log[:cut] for new in first.take(line)]
    second = Tail(first.cursor)
    since = second.since
    second.resume()
    for line in served(log, since):
        read += second.take(line)
        assert not second.lost
    assert read == log


def test_a_rotated_log_goes_on_after_a_gap() -> None:
    """When the old place is gone, what is later is taken, and it can be told that something is missing."""
    log = [Line(stamp(number * 10**8), b"line %d" % number) for number in range(400)]
    first = Tail(None)
    for line in log[:20]:
        first.take(line)
    second = Tail(first.cursor)
    second.resume()
    for line in log[100:140]:
        assert second.take(line) == []
    assert second.lost or not second.aligned
    assert second.settle() == log[100:140]
    assert second.take(log[140]) == [log[140]]
    assert second.known is None


def test_a_rotated_log_does_not_wait_for_its_end() -> None:
    """Lines much later than the place mean that it will not come any more."""
    log = [Line(stamp(number * 10**8), b"line %d" % number) for number in range(400)]
    first = Tail(None)
    for line in log[:20]:
        first.take(line)
    second = Tail(first.cursor)
    second.resume()
    for line in log[100:350]:
        second.take(line)
    assert second.lost


def test_a_resumed_log_may_begin_within_a_long_line() -> None:
    """The kubelet may give the end of a long line first; it is known already."""
    log = [Line(stamp(0), b"x" * 40_000), Line(stamp(10), b"b"), Line(stamp(20), b"c")]
    first = Tail(None)
    for line in log:
        first.take(line)
    second = Tail(first.cursor)
    second.resume()
    assert second.take(Line(stamp(5), b"x" * 100)) == []
    assert second.take(log[1]) == []
    assert second.take(log[2]) == []
    new = Line(stamp(30), b"d")
    assert second.take(new) == [new]


@given(st.lists(st.binary(max_size=12).filter(lambda text: b"\n" not in text), max_size=12), st.data())
def test_lines_survive_any_cut_of_the_bytes(texts: list[bytes], data: st.DataObject) -> None:
    """However the bytes arrive, the same lines come out, their last newline missing or not."""
    raw = b"".join(stamp(number).encode() + b" " + text + b"\n" for number, text in enumerate(texts))
    found: list[Line] = []
    splitter, position = LineSplitter(), 0
    while position < len(raw):
        size = data.draw(st.integers(1, 40))
        found += splitter.feed(raw[position : position + size])
        position += size
    assert found == [Line(stamp(number), text) for number, text in enumerate(texts)]
    assert list(splitter.feed(stamp(99).encode() + b" last")) == []
    assert list(splitter.end()) == [Line(stamp(99), b"last")]


def test_a_line_without_end_comes_in_parts() -> None:
    """A line is held to a length in memory, and its parts are the same however it arrives."""
    text = b"y" * (2 * LONGEST_LINE + 5)
    raw = stamp(1).encode() + b" " + text + b"\n" + stamp(2).encode() + b" z\n"
    for size in (1_000_000, 65_536, 100_000):
        found: list[Line] = []
        splitter = LineSplitter()
        for start in range(0, len(raw), size):
            found += splitter.feed(raw[start : start + size])
        assert [line.text for line in found[:-1]] == [
            text[:LONGEST_LINE],
            text[LONGEST_LINE : 2 * LONGEST_LINE],
            text[2 * LONGEST_LINE :],
        ]
        assert found[-1] == Line(stamp(2), b"z")


def test_times_of_a_node_elsewhere_are_told_in_utc() -> None:
    """The kubelet writes its own zone; what bears no time is the kubelet's and no line of the run."""
    splitter = LineSplitter()
    raw = b"2026-01-31T14:00:00.5+02:00 a\nfailed to watch the file\n2026-01-31T12:00:00Z \n"
    assert list(splitter.feed(raw)) == [
        Line("2026-01-31T12:00:00.500000000Z", b"a"),
        Line("2026-01-31T12:00:00.000000000Z", b""),
    ]


digits = st.text("0123456789", min_size=2, max_size=2)
zones = st.sampled_from(["Z", "+00:00", "+14:00", "-12:00", "+99:99"])


@given(st.builds("{}{}-{}-{}T{}:{}:{}{} words\n".format, *[digits] * 7, zones))
def test_a_time_that_there_is_not_stops_nothing(raw: str) -> None:
    """What looks like a line's time and is none, or is out of all reason, is no line; any other can be gone on from."""
    tail = Tail(None)
    for line in LineSplitter().feed(raw.encode()):
        tail.take(line)
        assert datetime.fromisoformat(line.timestamp[:19]).year >= 1969
        assert tail.since is not None
