"""The HTTP door to the queue and its runs: submit, status, cancel, history."""

from contextlib import suppress
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request

from shared import times
from shared.errors import StoreAway
from shared.runs import Run, RunStatus
from shared.store import Store, Submission, Which
from web import answers, schemas
from web.intake import make_run
from web.openapi import NOT_FOUND, describe
from web.problems import json
from web.schemas import InvalidRequest, parse_body, parse_query
from web.status import API, status_answer, stream_url
from web.wiring import Service

_KEY_LENGTH = 255


def api(service: Service) -> Blueprint:
    """The blueprint of the calls that concern more than one run."""
    door = Blueprint("api", __name__, url_prefix=API)
    store = service.store

    @door.post("/run")
    @describe(
        answers.RunAccepted,
        NOT_FOUND,
        json=schemas.RunRequest,
        tags=["runs"],
        answers={
            "HTTP_202": answers.RunAccepted,
            "HTTP_400": answers.Problem,
            "HTTP_409": answers.Problem,
            "HTTP_413": answers.Problem,
            "HTTP_415": answers.Problem,
        },
    )
    def run() -> Response:
        """Start a run, or queue it, or attach to the active one.

        With the header Idempotency-Key, the same request sent again gives the same run.
        """
        key = _idempotency_key()
        wanted, body = parse_body(schemas.RunRequest)
        made = make_run(store, wanted, times.now())
        taken = store.submit(made, wanted.when_busy, key, body)
        if taken.outcome == "started" and not taken.replayed:
            _poke(service, taken.run_id)
        attached = taken.outcome == "attached"
        run = _taken_in(store, made, taken)
        answer: dict[str, Any] = {
            "run_id": run.run_id,
            "status": run.status.value,
            "attached": attached,
            "job_name": run.job_name,
            "websocket_url": stream_url(run.run_id),
        }
        if attached:
            answer["detail"] = f"Run {run.run_id} is active, so yours was not taken in. Send when_busy=queue to wait."
        if taken.position is not None:
            answer["queue_position"] = taken.position
        return json(answer, 200 if attached else 202)

    @door.get("/status")
    @describe(answers.StatusAnswer, NOT_FOUND, query=schemas.StatusQuery, tags=["runs"])
    def status() -> Response:
        """A run: the one asked for, else the active one, else the last one."""
        return json(status_answer(store, parse_query(schemas.StatusQuery).run_id or Which.LATEST))

    @door.get("/active")
    @describe(answers.StatusAnswer, tags=["runs"])
    def active() -> Response:
        """The active run; `run` is null when there is none."""
        return json(status_answer(store, Which.ACTIVE))

    @door.delete("/cancel")
    @describe(answers.CancelAnswer, NOT_FOUND, query=schemas.CancelQuery, tags=["runs"])
    def cancel() -> Response:
        """End a run: the one asked for, else the active one."""
        run_id = parse_query(schemas.CancelQuery).run_id or store.active_id()
        if run_id is None:
            return json({"run_id": None, "status": None, "cancelled": False, "detail": "No run is active."})
        run, cancelled = store.cancel(run_id)
        detail = (run.message or "Cancelled.") if cancelled else f"The run has already ended: {run.status}."
        return json({"run_id": run_id, "status": run.status.value, "cancelled": cancelled, "detail": detail})

    @door.get("/history")
    @describe(list[answers.HistoryEntry], NOT_FOUND, query=schemas.HistoryQuery, tags=["runs"])
    def history() -> Response:
        """Runs, newest first."""
        query = parse_query(schemas.HistoryQuery)
        found = store.history(query.limit, before=_before(query.before), status=query.status)
        return json([_history_entry(item) for item in found])

    return door


def _taken_in(store: Store, made: Run, taken: Submission) -> Run:
    """The run that a submission is answered with. What was just taken in needs no look: Redis may be away by now."""
    if taken.run_id != made.run_id:
        return store.get(taken.run_id).run
    return made if taken.outcome == "queued" else made.moved(RunStatus.STARTING, made.queued_at)


def _poke(service: Service, run_id: str) -> None:
    # The record is kept, so the run is taken in: the reconciler pokes as soon as it can.
    with suppress(StoreAway):
        service.broker.poke(run_id)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= _KEY_LENGTH:
        where = ["header", "Idempotency-Key"]
        raise InvalidRequest([{"loc": where, "msg": f"must have 1 to {_KEY_LENGTH} characters"}])
    return key


def _before(text: str | None) -> str | datetime | None:
    if text is None or text.startswith("run-"):
        return text
    try:
        return times.from_text(text)
    except ValueError:
        raise InvalidRequest([{"loc": ["before"], "msg": "must be a run id or an RFC 3339 time"}]) from None


def _history_entry(run: Run) -> dict[str, Any]:
    info = run.info()
    entry = {name: info[name] for name in answers.HistoryEntry.model_fields if name in info}
    return entry | {"duration_seconds": run.duration_seconds}
