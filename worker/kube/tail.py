"""Where one followed container log stands: goes on after a cut with no line lost and none doubled. Pure.

The API server gives a log from a whole second on, so a resumed one overlaps what was read. The overlap is
found by what the last lines said and when, not by time alone: many lines may bear one time, and a node's
clock may step back.
"""

import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

LONGEST_LINE = 262_144
_LONGEST_STAMP = 64
_MARKS = 16
_SLACK = timedelta(seconds=5)
_FIRST_YEAR = 1970
# Nextflow's first words come some seconds after its container has begun. A log that begins much later has been turned
# over before anybody read it.
_FIRST_WITHIN = timedelta(seconds=90)
_STAMPED = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?",
)


@dataclass(slots=True)  # not frozen, which takes three times as long for each line
class Line:
    """One line of a container's log: when it was written (RFC 3339, UTC, nanoseconds) and what it says.

    `goes_on` if that is a part of a line, whose next part comes as the next one.
    """

    timestamp: str
    text: bytes
    goes_on: bool = field(default=False, compare=False)

    @property
    def mark(self) -> tuple[str, int]:
        """What it is known by when it is read again."""
        return self.timestamp, zlib.crc32(self.text)


class LineSplitter:
    """Makes lines of the bytes that the API server sends; what is longer than `LONGEST_LINE` comes in parts."""

    def __init__(self) -> None:
        self._rest = b""
        self._stamp = ""
        self._within = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for raw in whole:
            yield from self._parts(raw if self._within else self._stamped(raw))
            self._within = False
        if len(self._rest) > LONGEST_LINE + _LONGEST_STAMP:
            text = self._rest if self._within else self._stamped(self._rest)
            self._within = True
            ready = (len(text) - 1) // LONGEST_LINE * LONGEST_LINE
            self._rest = text[ready:]
            yield from self._parts(text[:ready], goes_on=True)

    @property
    def rest(self) -> bytes:
        """What came after the last newline."""
        return self._rest

    def end(self) -> Iterator[Line]:
        """The last line, if its newline is missing."""
        if self._rest:
            yield from self._parts(self._rest if self._within else self._stamped(self._rest))
            self._rest = b""

    def _stamped(self, raw: bytes) -> bytes:
        """The text of a line whose time is taken down."""
        found = _STAMPED.match(raw)
        self._stamp = _utc(found) if found else ""
        return raw[found.end() :] if found else raw

    def _parts(self, text: bytes, *, goes_on: bool = False) -> Iterator[Line]:
        # What bears no time is no line of the container: the kubelet says so when it cannot go on.
        if self._stamp:
            for start in range(0, max(len(text), 1), LONGEST_LINE):
                end = start + LONGEST_LINE
                yield Line(self._stamp, text[start:end], goes_on or end < len(text))


class Tail:
    """Tells which of the lines that are read are new. `cursor` is all it must know to go on, as JSON values.

    `begun` is when whoever writes them began, as far as that is known.
    """

    def __init__(self, cursor: dict[str, Any] | None, begun: str | None = None) -> None:
        cursor = cursor or {}
        self._begun = begun
        self._late = False
        self._marks: deque[tuple[str, int]] = deque((tuple(mark) for mark in cursor.get("marks", ())), maxlen=_MARKS)
        # How many lines of the last one's time came in a row: equal lines of one time are told apart by number.
        self._equal = int(cursor.get("equal", 0))
        self._aligning: _Alignment | None = None
        # Whether each of them ends a line, or is a part of one.
        self._ends: deque[bool] = deque(cursor.get("ends", ()), maxlen=_MARKS)
        self._gap = bool(cursor.get("gap", False))
        # Lines, and not bytes: containerd takes a carriage return from before a newline. None in an older place.
        self._lines: int | None = cursor.get("lines", None if self._marks else 0)

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the next reader goes on."""
        return {
            "marks": list(self._marks),
            "equal": self._equal,
            "ends": list(self._ends),
            "gap": self._gap,
            "lines": self._lines,
        }

    @property
    def known(self) -> tuple[int, list[int]] | None:
        """How many lines come before the last ones, and the sums (CRC-32) of the texts of these, from a line's begin.

        None when lines before them are missing or may be, so that nobody knows, or when they are parts of a single one.
        """
        if self._gap or self._lines is None:
            return None
        ends, begin = list(self._ends), 0
        if len(ends) == _MARKS:  # others came before
            if True not in ends[:-1]:
                return None
            begin = ends.index(True) + 1
        return self._lines - sum(ends[begin:]), [mark[1] for mark in self._marks][begin:]

    @property
    def since(self) -> str | None:
        """The time to read from, a whole second; None: from the beginning."""
        if not self._marks:
            return None
        last = datetime.fromisoformat(self._marks[-1][0][:19]).replace(tzinfo=UTC)
        earliest = min(datetime.fromisoformat(mark[0][:19]).replace(tzinfo=UTC) for mark in self._marks)
        return (min(last, earliest) - _SLACK).strftime("%Y-%m-%dT%H:%M:%SZ")

    def resume(self) -> None:
        """Reading begins again, from `since`."""
        self._aligning = _Alignment(list(self._marks), self._equal) if self._marks else None

    @property
    def aligned(self) -> bool:
        """Whether the place where reading had stopped has been found again."""
        return self._aligning is None

    def take(self, line: Line) -> list[Line]:
        """The new ones among the lines up to this one."""
        if self._aligning is not None:
            if self._aligning.found(line):
                self._aligning = None
            return []
        self._remember(line)
        return [line]

    def settle(self) -> list[Line]:
        """Give up looking for the place where reading had stopped: what is later than it, after a gap."""
        if self._aligning is None:
            return []
        later, self._aligning = self._aligning.later, None
        for line in later:
            self._remember(line)
        self._gap |= bool(later)
        return later

    @property
    def lost(self) -> bool:
        """Whether so much came after the place that it will not be found any more."""
        return self._aligning is not None and self._aligning.hopeless

    def begins_late(self) -> bool:
        """Whether the first line was so late that there may have been others before; True once."""
        late, self._late = self._late, False
        return late

    def _remember(self, line: Line) -> None:
        if self._begun and not self._marks and _second(line.timestamp) - _second(self._begun) > _FIRST_WITHIN:
            self._late = self._gap = True
        self._equal = self._equal + 1 if self._marks and self._marks[-1][0] == line.timestamp else 1
        self._marks.append(line.mark)
        self._ends.append(not line.goes_on)
        if self._lines is not None:
            self._lines += not line.goes_on


class _Alignment:
    """Looks for the last lines that were read among those that are read again."""

    def __init__(self, marks: Sequence[tuple[str, int]], equal: int) -> None:
        self._wanted = marks
        self._wanted_equal = equal
        self._seen: deque[tuple[str, int]] = deque(maxlen=len(marks))
        self._equal = 0
        self.later: list[Line] = []
        self.hopeless = False

    def found(self, line: Line) -> bool:
        """Whether this line is the last one that was read before."""
        self._equal = self._equal + 1 if self._seen and self._seen[-1][0] == line.timestamp else 1
        self._seen.append(line.mark)
        if self._matches():
            return True
        if line.timestamp > self._wanted[-1][0]:
            self.later.append(line)
            self.hopeless = _second(line.timestamp) - _second(self._wanted[-1][0]) > 2 * _SLACK
        return False

    def _matches(self) -> bool:
        if self._seen[-1] != self._wanted[-1] or self._equal != self._wanted_equal:
            return False
        # The first line that is read again may be the end of a longer one.
        pairs = zip(reversed(self._seen), reversed(self._wanted), strict=False)
        differing = sum(seen != wanted for seen, wanted in pairs)
        return differing == 0 or (differing == 1 and self._seen[0] != self._wanted[-len(self._seen)])


def _second(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp[:19])


def _utc(found: re.Match[bytes]) -> str:
    second, fraction, zone = found.groups(b"")
    there = _utc_second(second, zone)
    return f"{there}.{fraction.decode():0<9}Z" if there else ""


@lru_cache(16)
def _utc_second(second: bytes, zone: bytes) -> str | None:
    """That second in UTC; None when there is no such time. Lines come in order, so few are asked for often."""
    try:
        local = datetime.fromisoformat((second + zone).decode())
        return local.astimezone(UTC).isoformat()[:19] if local.year >= _FIRST_YEAR else None
    except (ValueError, OverflowError):
        return None
