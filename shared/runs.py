"""The run: its record, its statuses and the legal moves between them."""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared import redaction, times
from shared.errors import IllegalMove
from shared.records import known, names

_TIMES = ("queued_at", "started_at", "finished_at")


class RunStatus(StrEnum):
    """Where a run stands; final ones never change."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether a run of this status has ended for good."""
        return not LEGAL_MOVES[self]


LEGAL_MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset({RunStatus.STARTING, RunStatus.CANCELLED}),
    RunStatus.STARTING: frozenset({RunStatus.RUNNING, RunStatus.CANCELLING, RunStatus.FAILED, RunStatus.UNKNOWN}),
    RunStatus.RUNNING: frozenset({RunStatus.CANCELLING, RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.UNKNOWN}),
    RunStatus.CANCELLING: frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.UNKNOWN: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.CANCELLING,
            RunStatus.SUCCEEDED,
            RunStatus.FAILED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.SUCCEEDED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a pipeline, as the record in Redis keeps it.

    `session_id` is Nextflow's session: a run that resumes another shares it, and `resumes` is true. That other one may
    have ended before Nextflow began the session: where `session_may_be_new`, this one begins it then. `given_up` says
    why the service itself stops a run that it cannot supervise.
    """

    run_id: str
    pipeline: str
    session_id: str
    queued_at: datetime
    status: RunStatus = RunStatus.QUEUED
    revision: str | None = None
    profile: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    workdir: str | None = None
    config: str | None = None
    resumes: bool = False
    session_may_be_new: bool = False
    triggered_by: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str | None = None
    exit_code: int | None = None
    given_up: str | None = None

    @property
    def job_name(self) -> str:
        """The name of the job that executes the run."""
        return job_name(self.run_id)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end; None while either is missing."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds(), 3)

    def moved(
        self, status: RunStatus, at: datetime, *, message: str | None = None, exit_code: int | None = None
    ) -> "Run":
        """The record after a legal move at that time. Raises IllegalMove."""
        if status not in LEGAL_MOVES[self.status]:
            raise IllegalMove(self.status, status)
        return replace(
            self,
            status=status,
            message=message if message is not None else self.message,
            exit_code=exit_code,
            started_at=at if status is RunStatus.STARTING else self.started_at,
            finished_at=at if status.final else None,
        )

    def info(self) -> dict[str, Any]:
        """`RunInfo`, the run as clients see it, secrets hidden."""
        return {
            "run_id": self.run_id,
            "status": self.status.value,
            "started_at": _text(self.started_at),
            "finished_at": _text(self.finished_at),
            "job_name": self.job_name,
            "message": self.message,
            "pipeline": redaction.without_url_secrets(self.pipeline),
            "revision": self.revision,
            "profile": self.profile,
            "parameters": redaction.parameters(self.parameters),
            "triggered_by": self.triggered_by,
            "queued_at": _text(self.queued_at),
            "exit_code": self.exit_code,
            "session_id": self.session_id,
            "resumes": self.resumes,
        }

    def to_record(self) -> dict[str, Any]:
        """The record as JSON values; `from_record` reads it back to an equal run."""
        # Not asdict, which copies all parameters, however deep.
        record = {name: getattr(self, name) for name in names(Run)}
        return record | {name: _text(record[name]) for name in _TIMES}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Run":
        """The run that `to_record` wrote; what a newer version of the service has put into it besides is left out."""
        values = known(cls, record)
        for name in _TIMES:
            values[name] = times.from_text(values[name]) if values[name] else None
        values["status"] = RunStatus(values["status"])
        return cls(**values)


def job_name(run_id: str) -> str:
    """The name of the job that executes a run: a pure function of its id, so that it is made once."""
    return f"nextflow-{run_id}"


def new_run_id(at: datetime) -> str:
    """An id that sorts by time and is legal as a Nextflow run name and within Kubernetes names."""
    return f"run-{at:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def new_session_id() -> str:
    """A fresh Nextflow session id."""
    return str(uuid.uuid4())


def _text(time: datetime | None) -> str | None:
    return None if time is None else times.to_text(time)
