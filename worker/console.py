"""Reads one line of Nextflow's console or of its trace, in the shapes of versions 22 to 26. Pure; never raises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from worker.command import TRACE_FIELDS

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_HASH = r"\[(?P<hash>[0-9a-f]{2}/[0-9a-f]{6})\] "
_SUBMITTED = re.compile(rf"^{_HASH}(?P<kind>Submitted|Re-submitted) process > (?P<name>.+)$")
_CACHED = re.compile(rf"^(?:{_HASH}Cached|\[skipping\] Stored) process > (?P<name>.+)$")
_NOTE = re.compile(
    rf"^{_HASH}NOTE: (?P<text>.*?)(?: -- (?P<action>Execution is retried|Error is ignored)(?: \(\d+\))?)?$"
)
_ROW = re.compile(
    r"^\[(?:[0-9a-f]{2}/[0-9a-f]{6}|-\s*)\] (?:process > )?(?P<name>\S.{0,250}?)\s+"
    r"(?:(?:\[\s*\d+%\]|\|) (?P<done>\d{1,9}) of (?P<total>\d{1,9})"
    r"(?P<extra>(?:, (?:cached|stored|ignored|failed|retries): \d{1,9})*)\s*[✔✘]?|-)$"
)
_EXTRA = re.compile(r"(cached|stored|ignored|failed|retries): (\d{1,9})")
_EXECUTOR = re.compile(r"^executor >\s+(?P<list>\S.*\(\d+\).*)$")
_AGENT = re.compile(r"^\[PROCESS (?P<hash>[0-9a-f]{2}/[0-9a-f]{6})\] (?P<name>.+)$")
_TRACE = re.compile(r"(?P<row>\d{1,9}\t[0-9a-f]{2}/[0-9a-f]{6}\t.*)$")
_TRACE_HEAD = "\t".join(TRACE_FIELDS)
_ERROR = re.compile(r"^(?:ERROR ~ |\[ERROR\] )(?P<text>.*)$")
_WARNING = re.compile(r"^(?:WARN: |\[WARN\] )(?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Text:
    """A line that means nothing to the service: the pipeline's own words, most often."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task was handed to the executor; `again` when an earlier attempt of it failed."""

    hash: str
    name: str
    again: bool


@dataclass(frozen=True, slots=True)
class Cached:
    """A task needs no work: its result is there from an earlier run. A stored one has no hash."""

    hash: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """A task failed; `retried` when Nextflow will try it again."""

    hash: str
    text: str
    retried: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A process in the block that the ANSI console draws: tasks done of those seen, None before the first."""

    process: str
    done: int
    total: int
    extra: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Executor:
    """Which executors are at work, as the ANSI console names them."""

    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace row: a task ended. `before` is what another writer had put on the same line, if anything."""

    fields: Mapping[str, str]
    before: str


@dataclass(frozen=True, slots=True)
class TraceHead:
    """The first line of the trace."""


@dataclass(frozen=True, slots=True)
class BlockStart:
    """The first line of an error or a warning; the lines after it may belong to it."""

    level: str
    text: str


Meaning = Text | Submitted | Cached | Note | Row | Executor | Trace | TraceHead | BlockStart
_PLAIN = Text()
# How any line begins that `read` knows, but for those with a tab; an empty line is in this too.
_MAY_MEAN = "[EWe"
# Nothing that Nextflow itself says is longer, and some patterns take their time with what is.
_LONGEST = 1_000


def is_plain(line: str) -> bool:
    """Whether a line surely means nothing, neither to `read` nor to a terminal, and has no URL: most have none."""
    return not (line[:1] in _MAY_MEAN or "\t" in line or "\x1b" in line or "://" in line or line[-1] == "\r")


def plain(line: str) -> str:
    """The line without terminal escapes and without a carriage return at its end."""
    line = line.rstrip("\r")
    return _ANSI.sub("", line) if "\x1b" in line else line


def read(line: str) -> Meaning:
    """What a plain line says."""
    if "\t" in line:
        return _tabbed(line)
    if len(line) > _LONGEST:
        return _PLAIN
    if line.startswith("["):
        return _bracketed(line)
    if line.startswith(("ERROR", "WARN")):
        return _block_start(line)
    if line.startswith("executor >") and (found := _EXECUTOR.match(line)):
        return Executor(found["list"])
    return _PLAIN


def process_of(name: str) -> str:
    """The process that a task's name belongs to: `ALIGN` of `ALIGN (sample 1 (b))`, `A:B` of `A:B (1)`."""
    return name.partition(" (")[0] if name.endswith(")") else name


def tag_of(name: str) -> str | None:
    """What stands in the parentheses of a task's name."""
    _, opened, rest = name.partition(" (")
    return rest[:-1] if opened and name.endswith(")") else None


def _tabbed(line: str) -> Meaning:
    if line.endswith(_TRACE_HEAD):
        return TraceHead() if line == _TRACE_HEAD else _PLAIN
    found = _TRACE.search(line)
    if not found:
        return _PLAIN
    values = found["row"].split("\t")
    if len(values) != len(TRACE_FIELDS):
        return _PLAIN
    return Trace(dict(zip(TRACE_FIELDS, values, strict=True)), line[: found.start()])


def _bracketed(line: str) -> Meaning:
    if found := _SUBMITTED.match(line):
        return Submitted(found["hash"], found["name"], found["kind"] == "Re-submitted")
    if found := _CACHED.match(line):
        return Cached(found["hash"], found["name"])
    if found := _NOTE.match(line):
        return Note(found["hash"], found["text"], found["action"] == "Execution is retried")
    if line.startswith(("[ERROR] ", "[WARN] ")):
        return _block_start(line)
    if found := _AGENT.match(line):
        return Submitted(found["hash"], found["name"], again=False)
    return _row(line)


def _row(line: str) -> Meaning:
    found = _ROW.match(line)
    # A name the console has shortened with "…" does not say which process it is.
    if not found or "…" in found["name"]:
        return _PLAIN
    extra = {name: int(count) for name, count in _EXTRA.findall(found["extra"] or "")}
    return Row(process_of(found["name"]), int(found["done"] or 0), int(found["total"] or 0), extra)


def _block_start(line: str) -> Meaning:
    if found := _ERROR.match(line):
        return BlockStart("error", found["text"])
    if found := _WARNING.match(line):
        return BlockStart("warning", found["text"])
    return _PLAIN
