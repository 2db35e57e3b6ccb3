"""The run's log on disk: whatever bytes a run writes, its lines come out as they went in."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.cluster import Record
from worker.local_cluster import READ_BYTES, parse_records
from worker.shim import PART_BYTES, LineSplitter

LONGEST = 16 * PART_BYTES


def written(pieces: Sequence[bytes], stream: str = "stdout") -> bytes:
    """The log that a shim writes of these reads from a pipe."""
    splitter = LineSplitter(stream)
    records = [record for piece in pieces for record in splitter.feed(piece)]
    return b"".join([*records, *splitter.end()])


def read_back(log: bytes, cuts: Sequence[int] = ()) -> list[Record]:
    """The records of a log that grows to each of the cuts in turn, as a follower reads it."""
    found: list[Record] = []
    offset = 0
    for end in [*cuts, len(log)]:
        while True:
            records, used = parse_records(log[offset:end][:READ_BYTES])
            found += records
            offset += used
            if not used:
                break
    records, used = parse_records(log[offset:], last=True)
    return found + records


def cut(data: bytes, at: set[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(position for position in at if position <= len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


# Six of them are still shorter than the longest line that is not cut.
lengths = st.sampled_from([PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7])
some_bytes = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.just(b"\n"),
        st.text(max_size=5).map(lambda text: text.encode("utf-8", "replace")),
        lengths.map(lambda length: b"x" * length),
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=150)
@given(data=some_bytes, at=st.sets(st.integers(0, 100_000)), cuts=st.lists(st.integers(0, 200_000), max_size=5))
@example(data=b"last line without newline", at={3, 9}, cuts=[10])
@example(data=b"x" * PART_BYTES, at=set(), cuts=[])
@example(data=b"\n\n\xff\xfe\n", at={1}, cuts=[40])
def test_lines_survive_any_cut(data: bytes, at: set[int], cuts: list[int]) -> None:
    """Read from the pipe in any pieces and from the log at any moments, the lines are those that were written."""
    log = written(cut(data, at))
    lines = data.split(b"\n")
    wanted = [line.decode(errors="replace") for line in (lines if lines[-1] else lines[:-1])]
    found = read_back(log, sorted(min(position, len(log)) for position in cuts))
    assert [record.text for record in found] == wanted


def test_every_record_says_when_and_on_which_stream() -> None:
    """A record has an RFC 3339 time and the stream it came on."""
    (record,) = read_back(written([b"oops\n"], "stderr"))
    assert (record.stream, record.text) == ("stderr", "oops")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.timestamp)


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST + 1, 3 * LONGEST + 5])
def test_a_line_without_end_is_cut_and_loses_nothing(length: int) -> None:
    """A line too long for memory becomes several, each bounded, with every byte of it in order."""
    text = "".join(chr(97 + number % 26) for number in range(length))
    found = read_back(written(cut(text.encode() + b"\nnext\n", set(range(0, length, 60_000)))))
    assert "".join(record.text for record in found[:-1]) == text
    assert all(0 < len(record.text) <= LONGEST for record in found)
    assert found[-1].text == "next"


def test_a_look_at_the_log_always_gets_on() -> None:
    """One look reads more than the longest line takes, so a follower is never stuck."""
    log = written([b"x" * (3 * LONGEST)])
    records, used = parse_records(log[:READ_BYTES])
    assert records
    assert used


def test_streams_do_not_mix_in_one_line() -> None:
    """A line of one stream that comes in the middle of a long line of the other is its own, and takes nothing of it."""
    out, err = LineSplitter("stdout"), LineSplitter("stderr")
    long = b"o" * (PART_BYTES + 10)
    log = b"".join([*out.feed(long[:PART_BYTES]), *err.feed(b"oops\n"), *out.feed(long[PART_BYTES:] + b"\n")])
    found = read_back(log)
    assert [record.text for record in found if record.stream == "stderr"] == ["oops"]
    assert "".join(record.text for record in found if record.stream == "stdout") == long.decode()


def test_an_unfinished_record_waits_for_its_end() -> None:
    """A record that is only half on disk is not read before the rest is."""
    log = written([b"one\n", b"two\n"])
    records, used = parse_records(log[:-2])
    assert [record.text for record in records] == ["one"]
    assert [record.text for record in parse_records(log[used:])[0]] == ["two"]


@given(texts=st.lists(st.binary(max_size=12).filter(lambda text: b"\n" not in text)))
@pytest.mark.parametrize("more", [[], [b"a P b"]], ids=["no parts", "maybe parts"])
def test_lines_are_decoded_alike_in_both_ways(texts: list[bytes], more: list[bytes]) -> None:
    """One by one where a line may be in parts, else all at once; whatever bytes a pipeline prints."""
    said = [*texts, *more]
    log = b"".join(b"2026-01-31T00:00:00Z stdout F %s\n" % text for text in said)
    records, used = parse_records(log + b"2026-01-31T00:00:0")
    assert [record.text for record in records] == [text.decode(errors="replace") for text in said]
    assert {record.stream for record in records} <= {"stdout"}
    assert used == len(log)


@given(st.binary(max_size=200))
def test_any_log_is_read(data: bytes) -> None:
    """A log that was damaged gives some records and no error."""
    records, used = parse_records(data, last=True)
    assert used <= len(data)
    assert len(records) <= data.count(b"\n")
