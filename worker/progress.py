"""The count of a run's tasks, by process, folded from what Nextflow says. Pure; JSON in, JSON out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from shared import times
from shared.records import known
from worker.console import Cached, Executor, Meaning, Note, Row, Submitted, Trace, process_of, tag_of

_JUST_ENDED = 64
_MOST_PROCESSES = 1_000
_OTHERS = "(others)"


@dataclass(slots=True)
class Counts:
    """The tasks of one process. A failed attempt that is tried again counts as a retry and not as failed."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    aborted: int = 0

    @property
    def ended(self) -> int:
        """Tasks that have come to an end of their own."""
        return self.succeeded + self.cached + self.failed

    @property
    def total(self) -> int:
        """Tasks that Nextflow has spoken of."""
        return self.pending + self.running + self.aborted + self.ended


@dataclass(slots=True)
class Progress:
    """All that is known of a run's tasks. `live` maps the hash of each task at work to its index.

    What must be remembered does not grow with the number of ended tasks.
    """

    processes: dict[str, Counts] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    just_ended: list[str] = field(default_factory=list)
    tasks_seen: int = 0
    percent: int = 0
    executor: str | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Progress":
        """The progress that `state` wrote."""
        values = known(cls, state)
        values["processes"] = {name: Counts(**known(Counts, of)) for name, of in values.get("processes", {}).items()}
        return cls(**values)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        # Not asdict of it all, which copies each hash of each task at work, for each batch.
        return {
            "processes": {name: asdict(counts) for name, counts in self.processes.items()},
            "live": dict(self.live),
            "just_ended": self.just_ended,
            "tasks_seen": self.tasks_seen,
            "percent": self.percent,
            "executor": self.executor,
        }

    def fold(self, said: Meaning, at: str) -> tuple[int, dict[str, Any]] | None:
        """Take in what a line said at that time; returns the index and fields of the task that changed, if one did."""
        match said:
            case Submitted():
                return self._submitted(said, at)
            case Trace():
                return self._ended(said.fields)
            case Note(retried=True):
                self._will_retry(said)
            case Cached(hash=None):
                self._of(process_of(said.name)).cached += 1
            case Row():
                self._row(said)
            case Executor():
                self.executor = said.text
        return None

    def end(self, *, succeeded: bool) -> None:
        """The run is over: nothing is at work any more, and only success makes it whole."""
        for counts in self.processes.values():
            counts.aborted += counts.running + counts.pending
            counts.running = counts.pending = 0
        self.live.clear()
        if succeeded:
            self.percent = 100

    def data(self) -> dict[str, Any]:
        """The `data` of a progress event.

        Nextflow never says how many tasks there will be. So each task seen is a step, the end of the run is
        one more, and `percent` is the steps done of the steps known: it never goes down, and 100 is the end.
        """
        completed = sum(counts.ended for counts in self.processes.values())
        total = sum(counts.total for counts in self.processes.values())
        self.percent = max(self.percent, min(99, 100 * completed // (total + 1)))
        return {
            "percent": self.percent,
            "completed": completed,
            "total": total,
            "processes": [{"name": name, **asdict(counts)} for name, counts in self.processes.items()],
            "executor": self.executor,
        }

    def _of(self, process: str) -> Counts:
        if process not in self.processes and len(self.processes) >= _MOST_PROCESSES:
            process = _OTHERS
        return self.processes.setdefault(process, Counts())

    def _submitted(self, said: Submitted, at: str) -> tuple[int, dict[str, Any]] | None:
        if said.hash in self.live:
            return None
        counts = self._of(process_of(said.name))
        if said.again and counts.pending:
            counts.pending -= 1
        if said.hash in self.just_ended:
            return None
        counts.running += 1
        index = self._new_task(said.hash)
        return index, {
            "task_id": index,
            "hash": said.hash,
            "name": said.name,
            "process": process_of(said.name),
            "tag": tag_of(said.name),
            "status": "SUBMITTED",
            "exit": None,
            "attempt": None if said.again else 1,
            "submit": at,
        }

    def _new_task(self, task_hash: str) -> int:
        self.tasks_seen += 1
        self.live[task_hash] = self.tasks_seen
        return self.tasks_seen

    def _ended(self, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]] | None:
        task_hash = fields["hash"]
        if task_hash in self.just_ended:
            return None
        counts = self._of(fields["process"])
        was_live = task_hash in self.live
        index = self.live.get(task_hash) or self._new_task(task_hash)
        del self.live[task_hash]
        self.just_ended = [*self.just_ended[1 - _JUST_ENDED :], task_hash]
        if was_live and counts.running:
            counts.running -= 1
        self._count_end(counts, fields)
        return index, _task(index, fields)

    def _count_end(self, counts: Counts, fields: Mapping[str, str]) -> None:
        match fields["status"], fields["error_action"]:
            case "COMPLETED", _:
                counts.succeeded += 1
            case "CACHED", _:
                counts.cached += 1
            case "FAILED", "RETRY":
                counts.retries += 1
            case "ABORTED", _:
                counts.aborted += 1
            case _:
                counts.failed += 1

    def _will_retry(self, note: Note) -> None:
        # The note names the task, not the process alone: "Process `NAME (tag)` terminated …".
        name = note.text.partition("`")[2].partition("`")[0]
        if name:
            self._of(process_of(name)).pending += 1

    def _row(self, row: Row) -> None:
        # A redrawn row tells the whole count of a process; it fills in what the trace has not told.
        counts = self._of(row.process)
        cached = row.extra.get("cached", 0) + row.extra.get("stored", 0)
        failed = row.extra.get("failed", 0) + row.extra.get("ignored", 0) - row.extra.get("retries", 0)
        counts.cached = max(counts.cached, cached)
        counts.failed = max(counts.failed, failed)
        counts.retries = max(counts.retries, row.extra.get("retries", 0))
        counts.succeeded = max(counts.succeeded, row.done - counts.cached - max(counts.failed, 0))
        counts.pending = max(0, row.total - counts.running - counts.aborted - counts.ended)


def _task(index: int, fields: Mapping[str, str]) -> dict[str, Any]:
    return {
        "task_id": index,
        "hash": fields["hash"],
        "name": fields["name"],
        "process": fields["process"],
        "tag": _known(fields["tag"]),
        "status": fields["status"],
        "exit": _number(fields["exit"]),
        "attempt": _number(fields["attempt"]),
        "submit": _time(fields["submit"]),
        "start": _time(fields["start"]),
        "complete": _time(fields["complete"]),
        "realtime_ms": _number(fields["realtime"]),
        # Zero is Nextflow's word for a task that ended before its first sample: nothing runs in no memory.
        "peak_rss_bytes": _number(fields["peak_rss"]) or None,
        "cpus": _number(fields["cpus"]),
        "memory_bytes": _number(fields["memory"]),
        "native_id": _known(fields["native_id"]),
        "error_action": _known(fields["error_action"]),
        "workdir": _known(fields["workdir"]),
    }


def _known(text: str) -> str | None:
    return None if text in ("-", "") else text


def _number(text: str) -> int | None:
    return int(text) if len(text) < 19 and text.isascii() and text.isdigit() else None


def _time(text: str) -> str | None:
    milliseconds = _number(text)
    if milliseconds is None:
        return None
    try:
        moment: datetime = times.from_epoch_ms(milliseconds)
    except (ValueError, OverflowError, OSError):
        return None
    return times.to_text(moment)
