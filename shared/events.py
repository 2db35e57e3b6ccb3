"""Events: what goes to a browser, in the shapes of the public contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from shared import times
from shared.runs import Run

LINES_PER_EVENT = 50


class EventType(StrEnum):
    """The kinds of frame a viewer receives."""

    STATUS = "status"
    PROGRESS = "progress"
    LOG = "log"
    COMPLETE = "complete"
    ERROR = "error"


# Not frozen, and without slots: there is one a line, which would take twice as long to make, and five times to dump.
@dataclass
class LogLine:
    """One line that the run printed; `line` counts from 1 within the run, `timestamp` is when it was written."""

    timestamp: str
    message: str
    pod: str
    container: str
    stream: str
    line: int


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered thing that happened to a run. Its number is given when it is kept, not before.

    `lines` is how many log lines it carries, which is what retention counts.
    """

    type: EventType
    data: Mapping[str, Any]
    run_id: str
    at: datetime
    lines: int = 0

    def body(self) -> bytes:
        """The frame as JSON, without its id: the id stays outside so that nothing edits JSON as text twice."""
        return frame_body(self.type, self.data, self.run_id, self.at)


def frame_body(type_: EventType, data: Mapping[str, Any], run_id: str | None, at: datetime) -> bytes:
    """JSON of `{type, data, timestamp, run_id}`."""
    return orjson.dumps({"type": type_, "data": data, "timestamp": times.to_text(at), "run_id": run_id})


def with_id(body: bytes, event_id: int | None) -> bytes:
    """The whole frame: a body with its id, `null` for a frame that is no event."""
    number = b"null" if event_id is None else b"%d" % event_id
    return b'{"id":' + number + b"," + body[1:]


def status(run: Run, at: datetime, progress_percent: int | None = None) -> Event:
    """The run's status has changed to what the record says."""
    data = run.info() | {"progress_percent": progress_percent}
    return Event(EventType.STATUS, data, run.run_id, at)


def progress(run_id: str, data: Mapping[str, Any], at: datetime) -> Event:
    """Counts of the run's tasks, by process."""
    return Event(EventType.PROGRESS, data, run_id, at)


def log(run_id: str, lines: Sequence[LogLine], at: datetime) -> Event:
    """Lines the run printed; `LINES_PER_EVENT` at the most."""
    return Event(EventType.LOG, {"lines": lines, "count": len(lines)}, run_id, at, lines=len(lines))


def error(
    run_id: str,
    at: datetime,
    *,
    level: str,
    message: str,
    source: str,
    task: str | None = None,
    hint: str | None = None,
) -> Event:
    """Something went wrong, in words; `level` is `error` or `warning`."""
    data: dict[str, Any] = {"level": level, "message": message, "source": source}
    data |= {name: value for name, value in (("task", task), ("hint", hint)) if value is not None}
    return Event(EventType.ERROR, data, run_id, at)


def complete(run: Run, at: datetime) -> Event:
    """The run has ended; there is one of these a run, and it is the last."""
    data = {
        "status": run.status,
        "run": run.info(),
        "duration_seconds": run.duration_seconds,
        "exit_code": run.exit_code,
    }
    return Event(EventType.COMPLETE, data, run.run_id, at)
