"""The run records in Redis: the truth about every run, the queue and the one active slot."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Literal

import orjson

from shared import events, keys, times
from shared.errors import Busy, Conflict, Fenced, IllegalMove, KeyReused, QueueFull, RunNotFound
from shared.events import Event
from shared.redis_client import Client, script, store_errors
from shared.runs import Run, RunStatus
from shared.settings import Settings

_DAY = 86_400
_WAITING_SHOWN = 100
_KEPT_FIELDS = ("record", "version", "seq", "progress")
_STRAYS_SECONDS = 180
_PATIENCE = 20
_TRIMMED_AT_ONCE = 500

WhenBusy = Literal["attach", "queue", "reject"]
Slot = Literal["keep", "take", "release"]
Judge = Callable[[RunStatus], tuple[RunStatus, str | None]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A run as it stands: its record, the version a move must name, its last event and its progress."""

    run: Run
    version: int
    last_id: int
    progress: Mapping[str, Any] | None


class Which(Enum):
    """A run that is meant without its id: the active one, or none; the latest; or none in any case.

    The latest is the active one, else the one that began last; if that is no longer kept, the last that was called off.
    """

    ACTIVE = "active"
    LATEST = "latest"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand: a run, the first of its events that is kept, and the first hundred that wait, in order.

    Where none is kept, the first is the one that comes next: 1 where there is no run. Of one that waits there is
    `{run_id, pipeline, queued_at, triggered_by}`, secrets hidden. `preview` has the bodies of log events, the newest
    first, and `viewers` what each web process says of its sockets.
    """

    kept: Kept | None
    first_id: int
    waiting: Sequence[Mapping[str, Any]]
    preview: Sequence[bytes]
    viewers: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission: `started`, `queued` (at `position`, from 1) or `attached` to another run.

    `replayed` when it is the earlier answer to the same Idempotency-Key.
    """

    outcome: Literal["started", "queued", "attached"]
    run_id: str
    position: int | None
    replayed: bool = field(default=False, compare=False)


class Store:
    """Reads and moves run records. Every method raises StoreAway when Redis does not answer."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self._settings = settings
        self._submit = script(redis, "submit")
        self._move = script(redis, "move")
        self._standing = script(redis, "standing")

    def get(self, run_id: str) -> Kept:
        """The run as it stands. Raises RunNotFound."""
        with store_errors():
            fields = self.redis.hmget(keys.run(_an_id(run_id)), *_KEPT_FIELDS)
        return _kept(run_id, fields)

    def submit(
        self, run: Run, when_busy: WhenBusy, idempotency_key: str | None = None, request: bytes = b""
    ) -> Submission:
        """Take a run in, first come first served, in one step that any number of callers may race in.

        With the same key and request as before, nothing happens and the earlier answer is given again.
        Raises Busy, QueueFull or KeyReused.
        """
        starting = run.moved(RunStatus.STARTING, run.queued_at)
        digest = hashlib.sha256((idempotency_key or "").encode()).hexdigest()
        fingerprint = hashlib.sha256(request).hexdigest() if idempotency_key else ""
        with store_errors():
            outcome, run_id, position, *replayed = self._submit(
                keys=[
                    keys.ACTIVE,
                    keys.QUEUE,
                    keys.HISTORY,
                    keys.run(run.run_id),
                    keys.events(run.run_id),
                    keys.idempotency(digest),
                    keys.LATEST,
                ],
                args=[
                    run.run_id,
                    when_busy,
                    orjson.dumps(starting.to_record()),
                    events.status(starting, run.queued_at, 0).body(),
                    orjson.dumps(run.to_record()),
                    events.status(run, run.queued_at, 0).body(),
                    _milliseconds(run.queued_at),
                    self._settings.queue_limit,
                    fingerprint,
                    _DAY,
                    keys.run(""),
                    orjson.dumps(_entry(run)),
                ],
            )
        return _submission(outcome.decode(), run_id.decode(), int(position), replayed=replayed == [1])

    def move(
        self,
        run_id: str,
        change: Callable[[Run], Run | None],
        *,
        tell: Callable[[Run], Sequence[Event]],
        slot: Slot = "keep",
        fence: int | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> Run:
        """Replace the record by `change(record)` and keep the events of it, in one step, whoever else writes.

        `change` may be called again with a newer record, and returns None to leave the run as it is.
        Raises RunNotFound, IllegalMove (from `change`), Fenced, or Conflict.
        """
        for _ in range(_PATIENCE):
            kept = self.get(run_id)
            after = change(kept.run)
            if after is None:
                return kept.run
            outcome = self._try_move(kept.version, after, tell(after), slot, fence, progress)
            if outcome == b"ok":
                return after
            if outcome == b"fenced":
                raise Fenced(run_id)
            if outcome == b"missing":
                raise RunNotFound(run_id)
            if outcome == b"busy":
                break
        raise Conflict(run_id)

    def end(
        self,
        run_id: str,
        judge: Judge,
        *,
        exit_code: int | None = None,
        progress: Mapping[str, Any] | None = None,
        fence: int | None = None,
        at: datetime | None = None,
    ) -> Run:
        """End a run: final status, last progress and its one `complete`, and the slot is free. Again: no change.

        `judge` gives the final status and a message for the status that the run has at that moment, whatever it was
        when somebody looked; what it raises changes nothing. `at` is when the run ended, if that is not now.
        """

        def change(run: Run) -> Run | None:
            if run.status.final:
                return None
            status, message = judge(run.status)
            # A step that nobody wrote down was taken all the same, if this is how it ended.
            if run.status is RunStatus.STARTING and status is RunStatus.SUCCEEDED:
                run = run.moved(RunStatus.RUNNING, times.now())
            if run.status in (RunStatus.STARTING, RunStatus.RUNNING) and status is RunStatus.CANCELLED:
                run = run.moved(RunStatus.CANCELLING, times.now())
            ended_at = max(at or times.now(), run.started_at or run.queued_at)
            return run.moved(status, ended_at, message=message, exit_code=exit_code)

        def tell(run: Run) -> list[Event]:
            now = times.now()
            told = [events.progress(run_id, progress, now)] if progress is not None else []
            percent = int(progress["percent"]) if progress is not None else None
            return [*told, events.status(run, now, percent), events.complete(run, now)]

        return self.move(run_id, change, tell=tell, slot="release", fence=fence, progress=progress)

    def cancel(self, run_id: str) -> tuple[Run, bool]:
        """Ask a run to end: a queued one ends now, one that works becomes `cancelling`.

        Returns the run, and whether it ends by this or an earlier cancel; one that has ended already stays as it is.
        """
        run = self.get(run_id).run
        if run.status is RunStatus.QUEUED:
            try:
                ended = self.end(run_id, _never_began)
            except IllegalMove:  # its turn came in between
                return self.cancel(run_id)
            return ended, ended.status is RunStatus.CANCELLED

        def change(now: Run) -> Run | None:
            if now.status.final or now.status is RunStatus.CANCELLING:
                return None
            return now.moved(
                RunStatus.CANCELLING, times.now(), message="Being cancelled: Nextflow is ending, with the tasks it has."
            )

        after = self.move(run_id, change, tell=lambda run: [events.status(run, times.now())])
        return after, after.status is RunStatus.CANCELLING

    def begin_next(self) -> Run | None:
        """Give the free slot to the run that waits longest; None if none waits or the slot is taken."""
        head = self._head_of_idle_queue()
        while head is not None:
            try:
                return self.move(
                    head,
                    lambda run: run.moved(RunStatus.STARTING, times.now()),
                    tell=lambda run: [events.status(run, times.now(), 0)],
                    slot="take",
                )
            except (Conflict, IllegalMove):  # another took the slot, or the run was cancelled
                pass
            except RunNotFound:  # a queue entry whose record is gone starts nothing
                with store_errors():
                    self.redis.lrem(keys.QUEUE, 0, head)
            following = self._head_of_idle_queue()
            head = following if following != head else None
        return None

    def active_id(self) -> str | None:
        """The run that holds the slot."""
        with store_errors():
            value = self.redis.get(keys.ACTIVE)
        return value.decode() if value else None

    def free_slot_of(self, run_id: str) -> None:
        """Free the slot if a run holds it whose record is gone."""

        def free(pipeline: Client) -> None:
            is_its = pipeline.get(keys.ACTIVE) == run_id.encode() and not pipeline.exists(keys.run(run_id))
            pipeline.multi()
            if is_its:
                pipeline.delete(keys.ACTIVE)

        with store_errors():
            self.redis.transaction(free, keys.ACTIVE, keys.run(run_id))

    def standing(self, of: str | Which, preview_lines: int = 0) -> Standing:
        """How things stand at one moment, and so many of the newest lines of a run that its last forty events have.

        Raises RunNotFound.
        """
        found, fields, first, waiting, preview, viewers = self._ask_standing(of, _WAITING_SHOWN, preview_lines)
        kept = _kept(found.decode(), fields) if found else None
        after = kept.last_id + 1 if kept else 1
        first_id = int(first.partition(b"-")[0]) if first else after
        return Standing(kept, first_id, list(map(_shown, waiting)), preview, viewers)

    def queue_length(self) -> int:
        """How many runs wait."""
        with store_errors():
            return int(self.redis.llen(keys.QUEUE))

    def latest_id(self) -> str | None:
        """The run that `Which.LATEST` means."""
        [found] = self._ask_standing(Which.LATEST, 0, 0)
        return str(found.decode()) if found else None

    def history(
        self, limit: int, *, before: str | datetime | None = None, status: RunStatus | None = None
    ) -> list[Run]:
        """Runs, newest first; only those older than a run or a time, only those of one status."""
        found: list[Run] = []
        start = self._history_start(before)
        while len(found) < limit:
            page = self._history_page(start, max(limit, 50))
            if not page:
                break
            start += len(page)
            found += [run for run in page if run is not None and status in (None, run.status)]
        return found[:limit]

    def trim_history(self) -> int:
        """Drop the runs that ended first, beyond the limit, and those whose time is over; returns how many."""
        over = times.now() - timedelta(minutes=self._settings.run_ttl_minutes)
        with store_errors():
            beyond = int(self.redis.zcard(keys.ENDED)) - self._settings.run_history_limit
            old = int(self.redis.zcount(keys.ENDED, "-inf", _milliseconds(over)))
            most = min(_TRIMMED_AT_ONCE, max(beyond, old))
            gone = [value.decode() for value in self.redis.zrange(keys.ENDED, 0, most - 1)] if most > 0 else []
            pipeline = self.redis.pipeline(transaction=False)
            for run_id in gone:
                pipeline.delete(keys.run(run_id), keys.events(run_id), keys.tasks(run_id), keys.lease(run_id))
                pipeline.zrem(keys.HISTORY, run_id)
                pipeline.zrem(keys.ENDED, run_id)
            pipeline.execute()
        return len(gone)

    def totals(self) -> dict[str, int]:
        """How many runs have ever ended with each final status."""
        with store_errors():
            found = self.redis.hgetall(keys.TOTALS)
        return {name.decode(): int(count) for name, count in found.items()}

    def report_strays(self, strays: Sequence[str]) -> None:
        """Keep what works for runs that are not active, in words, until the next report or for three minutes."""
        with store_errors():
            self.redis.set(keys.STRAYS, orjson.dumps(strays), ex=_STRAYS_SECONDS)

    def strays(self) -> list[str] | None:
        """What works for runs that are not active; None when nobody has looked of late."""
        with store_errors():
            found = self.redis.get(keys.STRAYS)
        return None if found is None else list(orjson.loads(found))

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """The kept Nextflow tasks of a run, in the order they were first seen. Raises RunNotFound."""
        self.get(run_id)
        with store_errors():
            found = self.redis.hgetall(keys.tasks(run_id))
        return [orjson.loads(found[index]) for index in sorted(found, key=int)]

    def _ask_standing(self, of: str | Which, most_waiting: int, preview_lines: int) -> list[Any]:
        which, run_id = (of.value, "") if isinstance(of, Which) else ("run", _an_id(of))
        with store_errors():
            answer: list[Any] = self._standing(
                keys=[keys.ACTIVE, keys.LATEST, keys.ENDED, keys.QUEUE, keys.VIEWERS],
                args=[which, run_id, keys.run(""), most_waiting, preview_lines],
            )
        return answer

    def _try_move(
        self,
        version: int,
        after: Run,
        told: Sequence[Event],
        slot: Slot,
        fence: int | None,
        progress: Mapping[str, Any] | None,
    ) -> bytes:
        with store_errors():
            outcome: bytes = self._move(
                keys=[
                    keys.run(after.run_id),
                    keys.events(after.run_id),
                    keys.ACTIVE,
                    keys.QUEUE,
                    keys.tasks(after.run_id),
                    keys.TOTALS,
                    keys.ENDED,
                    keys.LATEST,
                ],
                args=[
                    after.run_id,
                    version,
                    "" if fence is None else fence,
                    after.status.value,
                    orjson.dumps(after.to_record()),
                    slot,
                    self._settings.run_ttl_minutes * 60,
                    self._settings.log_retention_lines,
                    self._settings.log_retention_bytes,
                    b"" if progress is None else orjson.dumps(progress),
                    _milliseconds(times.now()),  # kept from when its end is known, however long ago that was
                    *(event.body() for event in told),
                ],
            )
        return outcome

    def _head_of_idle_queue(self) -> str | None:
        with store_errors():
            if self.redis.exists(keys.ACTIVE):
                return None
            head = self.redis.lindex(keys.QUEUE, 0)
        return head.decode() if head else None

    def _history_start(self, before: str | datetime | None) -> int:
        if before is None:
            return 0
        with store_errors():
            if isinstance(before, datetime):
                newer = self.redis.zcount(keys.HISTORY, _milliseconds(before), "+inf")
                return int(newer)
            rank = self.redis.zrevrank(keys.HISTORY, before)
        if rank is None:
            raise RunNotFound(before)
        return int(rank) + 1

    def _history_page(self, start: int, size: int) -> list[Run | None]:
        with store_errors():
            found = self.redis.zrevrange(keys.HISTORY, start, start + size - 1)
        return self._records([run_id.decode() for run_id in found])

    def _records(self, run_ids: Sequence[str]) -> list[Run | None]:
        """The records of these runs, asked for at once; None for one that is gone."""
        with store_errors():
            pipeline = self.redis.pipeline(transaction=False)
            for run_id in run_ids:
                pipeline.hget(keys.run(run_id), "record")
            records = pipeline.execute()
        return [_run(record) if record else None for record in records]


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _never_began(status: RunStatus) -> tuple[RunStatus, str]:
    if status is not RunStatus.QUEUED:  # something of it may be at work, and must be ended first
        raise IllegalMove(status, RunStatus.CANCELLED)
    return RunStatus.CANCELLED, "Cancelled while it waited in the queue."


def _an_id(run_id: str) -> str:
    """The id itself. Raises RunNotFound for what would name another key of a run, and for nothing at all."""
    if not run_id or ":" in run_id:
        raise RunNotFound(run_id)
    return run_id


def _entry(run: Run) -> dict[str, Any]:
    info = run.info()
    return {name: info[name] for name in ("run_id", "pipeline", "queued_at", "triggered_by")}


def _shown(entry: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(entry)
    return _entry(Run.from_record(found)) if "session_id" in found else found


def _run(record: bytes) -> Run:
    return Run.from_record(orjson.loads(record))


def _kept(run_id: str, fields: Sequence[bytes | None]) -> Kept:
    """Raises RunNotFound when there is no record."""
    record, version, last_id, progress = fields
    if record is None:
        raise RunNotFound(run_id)
    return Kept(
        run=_run(record),
        version=int(version or 0),
        last_id=int(last_id or 0),
        progress=orjson.loads(progress) if progress else None,
    )


def _submission(outcome: str, run_id: str, position: int, *, replayed: bool) -> Submission:
    match outcome:
        case "started" | "queued" | "attached":
            return Submission(outcome, run_id, position or None, replayed)
        case "busy":
            raise Busy(run_id)
        case "full":
            raise QueueFull(position)
        case "reused":
            raise KeyReused(run_id)
        case _:
            raise AssertionError(outcome)
