"""Shapes of answers; the OpenAPI document is made from them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared.runs import RunStatus


class RunInfo(BaseModel):
    """One run. Values of parameters that look like secrets are hidden."""

    run_id: str
    status: RunStatus
    started_at: str | None
    finished_at: str | None
    job_name: str
    message: str | None
    pipeline: str
    revision: str | None
    profile: str | None
    parameters: dict[str, Any]
    triggered_by: str | None
    queued_at: str
    exit_code: int | None
    session_id: str
    resumes: bool


class RunAccepted(BaseModel):
    """What became of a submission."""

    run_id: str
    status: RunStatus
    attached: bool
    job_name: str
    websocket_url: str
    queue_position: int | None = None
    detail: str | None = None


class ProcessCounts(BaseModel):
    """The tasks of one Nextflow process."""

    name: str
    pending: int
    running: int
    succeeded: int
    cached: int
    failed: int
    retries: int
    aborted: int


class Progress(BaseModel):
    """The tasks of a run. `percent` never goes down and is 100 only after success."""

    percent: int
    completed: int
    total: int
    processes: list[ProcessCounts]
    executor: str | None


class QueueEntry(BaseModel):
    """A run that waits."""

    run_id: str
    position: int
    pipeline: str
    queued_at: str
    triggered_by: str | None


class StatusAnswer(BaseModel):
    """How things stand."""

    active: bool
    run: RunInfo | None
    progress_percent: int
    progress: Progress | None
    log_preview: list[str]
    websocket_url: str
    connected_clients: int
    last_update: str
    queue: list[QueueEntry]


class CancelAnswer(BaseModel):
    """What became of a cancel."""

    run_id: str | None
    status: RunStatus | None
    cancelled: bool
    detail: str


class HistoryEntry(BaseModel):
    """One run in the history."""

    run_id: str
    status: RunStatus
    queued_at: str
    started_at: str | None
    finished_at: str | None
    duration_seconds: float | None
    triggered_by: str | None
    job_name: str
    pipeline: str
    revision: str | None
    message: str | None


class Task(BaseModel):
    """One attempt at a Nextflow task."""

    model_config = ConfigDict(extra="allow")
    task_id: int
    hash: str
    name: str
    process: str
    tag: str | None
    status: str
    exit: int | None
    attempt: int | None
    submit: str | None
    start: str | None = None
    complete: str | None = None
    realtime_ms: int | None = None
    peak_rss_bytes: int | None = None


class TasksAnswer(BaseModel):
    """The tasks of a run, in the order they were submitted."""

    run_id: str
    tasks: list[Task]
    total: int
    truncated: bool


class Frame(BaseModel):
    """One event, as the socket sends it."""

    type: Literal["status", "progress", "log", "complete", "error"]
    data: dict[str, Any]
    timestamp: str
    run_id: str | None
    id: int | None


class EventsAnswer(BaseModel):
    """Kept events in order. Ids below `first_id` are no longer kept."""

    run_id: str
    status: RunStatus
    events: list[Frame]
    first_id: int
    last_id: int


class Artifact(BaseModel):
    """One file that a run left."""

    name: str
    kind: Literal["report", "output"]
    size: int
    url: str


class ArtifactsAnswer(BaseModel):
    """The files a run left."""

    run_id: str
    artifacts: list[Artifact]
    truncated: bool


class Ticket(BaseModel):
    """A ticket for one socket."""

    ticket: str
    expires_in_seconds: int


class About(BaseModel):
    """The service."""

    name: str
    version: str
    runner: str
    flower_url: str | None
    docs_url: str
    auth_required: bool


class Catalog(BaseModel):
    """Pipelines that can be started by name."""

    workflows: list[dict[str, Any]]


class Alive(BaseModel):
    """The process is alive."""

    status: Literal["alive"]


class Check(BaseModel):
    """One part of the service."""

    ok: bool
    detail: str


class Health(BaseModel):
    """Whether the service can do its work, and which part of it cannot."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, Check]
    strays: list[str] | None
    """What works for a run that is not active, in words: nothing of the service's will end it. Null when nobody has
    looked within three minutes."""


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    msg: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
