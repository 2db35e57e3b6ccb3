"""Turns what a run writes into events: log lines, progress, and an error event for each block of an error."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from shared import events, redaction, times
from shared.events import LINES_PER_EVENT, Event, LogLine
from shared.feed import Batch, Place
from shared.records import known
from shared.runs import Run
from worker import console
from worker.cluster import Chunk, Notice, Record
from worker.console import BlockStart, Meaning, Text, Trace, TraceHead
from worker.hints import hint_for
from worker.progress import Progress

CONTAINER = "nextflow"
PROGRESS_SECONDS = 0.2
# After so long without a line, what an error or a warning has said is all of it.
_QUIET_SECONDS = {"error": 2.0, "warning": 0.2}
_BLOCK_LINES = 200
_LINE_LENGTH = 2000
_WORDS_LENGTH = 500
_TOLD = 400
_LAST_WORDS = 12
_GREETINGS = ("N E X T F L O W", "Launching `", " N E X T F L O W", "Pulling ", " downloaded from ")
_ERROR_END = "Check '.nextflow.log' file"
_TASK = re.compile(r"Error executing process > '(?P<task>.+)'")


@dataclass(slots=True)
class Memory:
    """What the scribe must know to go on where another left off; kept with every batch."""

    line: int = 0
    block: list[str] = field(default_factory=list)
    block_level: str = ""
    block_left_out: int = 0
    told: int = 0
    first_error: str | None = None
    last_words: list[str] = field(default_factory=list)


class Scribe:
    """Writes the events of one run. Its state goes with each batch, so another can take over at any of them."""

    def __init__(self, run: Run, left: Place) -> None:
        self._run = run
        self._pod = run.job_name
        self._batch = left.batch
        state = left.place.get("scribe", {})
        self._memory = Memory(**known(Memory, state.get("memory", {})))
        self.progress = Progress.from_state(state.get("progress", {}))
        self.place: Mapping[str, Any] = left.place.get("cluster", {})
        self._told: Mapping[str, Any] | None = None
        self._told_at = 0.0
        self._changed = True
        self._state: Mapping[str, Any] | None = None
        """Of the progress, until that changes: most lines say nothing of it."""
        self._heard_at: float | None = None
        self._lines: list[LogLine] = []
        self._words: list[str] = []
        """The pipeline's own lines of a chunk, of which the last may be the last words."""
        self._events: list[Event] = []
        self._tasks: dict[int, Mapping[str, Any]] = {}

    @property
    def first_error(self) -> str | None:
        """The first error's cause, else the last words on the console; None when nothing was said."""
        return self._memory.first_error or " ".join(self._memory.last_words[-5:]) or None

    def take(self, chunk: Chunk, clock: float) -> Batch | None:
        """The batch to append for a chunk, None if there is nothing to say. `clock` is in seconds, monotonic."""
        # The first batch of a run says that somebody has begun with it, even if there is nothing else to say.
        moved, self.place = chunk.place != self.place, chunk.place
        for record in chunk.records:
            if record.container in ("", CONTAINER):
                if console.is_plain(record.text) and not self._memory.block:  # as nearly all are
                    self._words.append(record.text)
                    self._log(record, record.text)
                else:
                    self._read(record)
            else:  # what stands beside Nextflow in its pod says nothing about the run
                self._log(record, redaction.without_url_secrets(console.plain(record.text)))
        for notice in chunk.notices:
            self._tell_notice(notice)
        if chunk.records or self._heard_at is None:
            self._heard_at = clock
        elif clock - self._heard_at >= _QUIET_SECONDS[self._memory.block_level or "warning"]:
            self._close_block()
        self._flush_lines()
        self._settle_words()
        told = self._progress_due(clock) if clock - self._told_at >= PROGRESS_SECONDS else None
        return self._batch_of(told, always=moved or bool(chunk.records or chunk.notices))

    def close(self) -> None:
        """The log has ended: what is open is complete now."""
        self._close_block()

    def last(self, failure: str | None, *, from_outside: bool = False) -> Batch | None:
        """The batch that ends the events of a run; a `failure` that no error event has told is told by one.

        It has the last words on the console, where Nextflow says what it cannot do, unless it was ended from outside.
        """
        self._close_block()
        if failure is not None and not self._memory.first_error:
            words = [failure] if from_outside else self._memory.last_words or [failure]
            self._memory.first_error = failure if from_outside else self.first_error
            self._tell_block("error", words, source="service" if from_outside else "nextflow")
        return self._batch_of(None, always=False)

    def _read(self, record: Record) -> None:
        line = redaction.without_url_secrets(console.plain(record.text))
        meaning = console.read(line)
        self._mind_block(line, meaning)
        match meaning:
            case TraceHead():
                return
            case Trace():
                line = meaning.before
        if isinstance(meaning, Text):
            self._words.append(line)
        else:
            self._changed, self._state = True, None
            if (changed := self.progress.fold(meaning, record.timestamp)) is not None:
                self._tasks[changed[0]] = changed[1]
        if line or not isinstance(meaning, Trace):
            self._log(record, line)

    def _settle_words(self) -> None:
        """Only the last words are looked at, however many lines there were."""
        said = (line for line in reversed(self._words) if line.strip() and not line.startswith(_GREETINGS))
        found = [line[:_WORDS_LENGTH] for line in islice(said, _LAST_WORDS)]
        self._memory.last_words = [*self._memory.last_words, *reversed(found)][-_LAST_WORDS:]
        self._words = []

    def _log(self, record: Record, line: str) -> None:
        self._memory.line += 1
        pod, container = record.pod or self._pod, record.container or CONTAINER
        self._lines.append(LogLine(record.timestamp, line, pod, container, record.stream, self._memory.line))
        if len(self._lines) == LINES_PER_EVENT:
            self._flush_lines()

    def _mind_block(self, line: str, meaning: Meaning) -> None:
        memory = self._memory
        if memory.block and not _continues(memory.block_level, line, meaning):
            self._close_block()
        if isinstance(meaning, BlockStart):
            memory.block, memory.block_level = [line[:_LINE_LENGTH]], meaning.level
        elif memory.block and not isinstance(meaning, Trace | TraceHead):
            if len(memory.block) == _BLOCK_LINES:  # the beginning and the end of a block say most
                del memory.block[_BLOCK_LINES // 2]
                memory.block_left_out += 1
            memory.block.append(line[:_LINE_LENGTH])
            if memory.block_level == "error" and _ERROR_END in line:
                self._close_block()

    def _close_block(self) -> None:
        block, self._memory.block = self._memory.block, []
        if self._memory.block_left_out:
            words = f"(… {self._memory.block_left_out} lines are left out here; the log has them.)"
            block.insert(_BLOCK_LINES // 2, words)
            self._memory.block_left_out = 0
        if block:
            self._tell_block(self._memory.block_level, block)

    def _tell_block(self, level: str, block: Sequence[str], source: str = "nextflow") -> None:
        self._flush_lines()
        text = "\n".join(block).strip()
        if level == "error" and self._memory.first_error is None:
            self._memory.first_error = cause(block)
        self._memory.told += 1
        if self._memory.told > _TOLD:
            return
        if self._memory.told == _TOLD:
            text += "\n(Further errors and warnings of this run are in its log only.)"
        task = _TASK.search(text)
        self._events.append(
            events.error(
                self._run.run_id,
                times.now(),
                level=level,
                message=text,
                source=source,
                task=task["task"] if task else None,
                hint=hint_for(text),
            )
        )

    def _tell_notice(self, notice: Notice) -> None:
        self._flush_lines()
        if notice.level == "error" and notice.task is None and self._memory.first_error is None:
            self._memory.first_error = notice.message
        self._events.append(
            events.error(
                self._run.run_id,
                times.now(),
                level=notice.level,
                message=redaction.without_url_secrets(notice.message),
                source=notice.source,
                task=notice.task,
                hint=notice.hint,
            )
        )

    def _flush_lines(self) -> None:
        if self._lines:
            self._events.append(events.log(self._run.run_id, self._lines, times.now()))
            self._lines = []

    def _progress_due(self, clock: float) -> Mapping[str, Any] | None:
        if not self._changed or not self.progress.processes:
            return None
        self._changed, self._state = False, None
        data = self.progress.data()
        if data == self._told:
            return None
        self._told, self._told_at = data, clock
        return data

    def _batch_of(self, progress: Mapping[str, Any] | None, *, always: bool) -> Batch | None:
        at: datetime = times.now()
        told, tasks = self._events, self._tasks
        if progress is not None:
            told = [*told, events.progress(self._run.run_id, progress, at)]
        if not (told or tasks or always):
            return None
        self._events, self._tasks = [], {}
        self._batch += 1
        memory = {name: getattr(self._memory, name) for name in Memory.__slots__}
        self._state = self._state or self.progress.state()
        state = {"memory": memory, "progress": self._state}
        return Batch(
            number=self._batch,
            place={"cluster": self.place, "scribe": state},
            events=told,
            tasks=sorted(tasks.items()),
            progress=progress,
        )


def cause(block: Sequence[str]) -> str:
    """The words of an error block that a person needs first: its cause, else its first line."""
    for number, line in enumerate(block):
        if line.startswith("Caused by:"):
            following = (after.strip() for after in block[number + 1 :])
            return next((after for after in following if after), line)
    first = next((line.strip() for line in block if line.strip()), "")
    return first.removeprefix("ERROR ~ ").removeprefix("[ERROR] ")


def _continues(level: str, line: str, meaning: Meaning) -> bool:
    if isinstance(meaning, Trace | TraceHead):
        return True
    if not isinstance(meaning, Text):
        return False
    return level == "error" or not line.strip() or line.startswith((" ", "\t", "* ", "- "))
