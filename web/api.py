"""The HTTP door: every call under `/api/v1/pipeline`."""

from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson
from flask import Blueprint, Response, request

from shared import events, times
from shared.errors import RunNotFound, StoreAway
from shared.places import RunPlaces, run_places
from shared.runs import Run
from web import schemas
from web.access import TICKET_SECONDS, new_ticket
from web.artifacts import list_artifacts, send_artifact
from web.catalog import read_catalog
from web.hub import Hub
from web.intake import make_run
from web.openapi import NOT_FOUND, describe, package_version
from web.schemas import InvalidRequest, parse_body, parse_query
from web.status import API, status_answer, stream_url
from web.wiring import Service

_LOG_PAGE = 100
_KEY_LENGTH = 255


def json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, content_type="application/json")


def api(service: Service, hub: Hub) -> Blueprint:
    """The blueprint of the API."""
    door = Blueprint("api", __name__, url_prefix=API)
    settings, store, feed = service.settings, service.store, service.feed

    def places_of(run_id: str) -> RunPlaces:
        run = store.get(run_id).run
        return run_places(settings.data_dir, run.run_id, run.session_id)

    @door.post("/run")
    @describe(
        schemas.RunAccepted,
        json=schemas.RunRequest,
        tags=["runs"],
        answers={
            "HTTP_202": schemas.RunAccepted,
            "HTTP_400": schemas.Problem,
            "HTTP_409": schemas.Problem,
            "HTTP_413": schemas.Problem,
            "HTTP_415": schemas.Problem,
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
        run = store.get(taken.run_id).run
        attached = taken.outcome == "attached"
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
    @describe(schemas.StatusAnswer, NOT_FOUND, query=schemas.StatusQuery, tags=["runs"])
    def status() -> Response:
        """A run: the one asked for, else the active one, else the last one."""
        run_id = parse_query(schemas.StatusQuery).run_id or store.latest_id()
        return json(status_answer(service, run_id, hub.presence.total))

    @door.get("/active")
    @describe(schemas.StatusAnswer, tags=["runs"])
    def active() -> Response:
        """The active run; `run` is null when there is none."""
        return json(status_answer(service, store.active_id(), hub.presence.total))

    @door.delete("/cancel")
    @describe(schemas.CancelAnswer, NOT_FOUND, query=schemas.StatusQuery, tags=["runs"])
    def cancel() -> Response:
        """End a run: the one asked for, else the active one."""
        run_id = parse_query(schemas.StatusQuery).run_id or store.active_id()
        if run_id is None:
            return json({"run_id": None, "status": None, "cancelled": False, "detail": "No run is active."})
        run, cancelled = store.cancel(run_id)
        detail = (run.message or "Cancelled.") if cancelled else f"The run has already ended: {run.status}."
        return json({"run_id": run_id, "status": run.status.value, "cancelled": cancelled, "detail": detail})

    @door.get("/history")
    @describe(list[schemas.HistoryEntry], NOT_FOUND, query=schemas.HistoryQuery, tags=["runs"])
    def history() -> Response:
        """Runs, newest first."""
        query = parse_query(schemas.HistoryQuery)
        before = _before(query.before)
        try:
            found = store.history(query.limit, before=before, status=query.status)
        except RunNotFound as error:
            raise InvalidRequest([{"loc": ["before"], "msg": str(error)}]) from None
        return json([_history_entry(item) for item in found])

    @door.get("/runs/<run_id>")
    @describe(schemas.RunInfo, NOT_FOUND, tags=["runs"])
    def one(run_id: str) -> Response:
        """One run."""
        return json(store.get(run_id).run.info())

    @door.get("/runs/<run_id>/tasks")
    @describe(schemas.TasksAnswer, NOT_FOUND, query=schemas.TasksQuery, tags=["details"])
    def tasks(run_id: str) -> Response:
        """Nextflow's tasks of a run."""
        limit = parse_query(schemas.TasksQuery).limit
        found = store.tasks(run_id)
        if store.get(run_id).run.status.final:
            # A killed Nextflow tells no end of its tasks, but they have ended with it.
            found = [item | {"status": "ABORTED"} if item["status"] == "SUBMITTED" else item for item in found]
        total = found[-1]["task_id"] if found else 0
        shown = found[-limit:]
        return json({"run_id": run_id, "tasks": shown, "total": total, "truncated": len(shown) < total})

    @door.get("/runs/<run_id>/logs")
    @describe(None, NOT_FOUND, query=schemas.LogsQuery, tags=["details"])
    def logs(run_id: str) -> Response:
        """The kept log as text, a line a line."""
        query = parse_query(schemas.LogsQuery)
        store.get(run_id)
        lines = (
            _tail(service, run_id, query.tail, query.since or 0)
            if query.tail is not None
            else _log_lines(service, run_id, query.since or 0)
        )
        return Response("".join(f"{line}\n" for line in lines), content_type="text/plain; charset=utf-8")

    @door.get("/runs/<run_id>/events")
    @describe(schemas.EventsAnswer, NOT_FOUND, query=schemas.EventsQuery, tags=["details"])
    def run_events(run_id: str) -> Response:
        """Kept events after an id, in order."""
        query = parse_query(schemas.EventsQuery)
        store.get(run_id)
        first_id, last_id = feed.bounds(run_id)
        frames = b",".join(frame for _, frame in feed.read(run_id, query.since, query.limit))
        head = orjson.dumps({"run_id": run_id, "first_id": first_id, "last_id": last_id})
        return Response(head[:-1] + b',"events":[' + frames + b"]}", content_type="application/json")

    @door.get("/runs/<run_id>/artifacts")
    @describe(schemas.ArtifactsAnswer, NOT_FOUND, tags=["details"])
    def artifacts(run_id: str) -> Response:
        """The files a run left: Nextflow's reports, and what was published to `results`."""
        return json(list_artifacts(run_id, places_of(run_id)))

    @door.get("/runs/<run_id>/artifacts/<any(report, output):kind>/<path:name>")
    @describe(None, NOT_FOUND, tags=["details"])
    def artifact(run_id: str, kind: str, name: str) -> tuple[Any, int, list[tuple[str, str]]]:
        """One file that a run left."""
        sent = send_artifact(places_of(run_id), kind, name)
        # In parts, because spectree reads the whole of a Response into memory.
        return sent.response, sent.status_code, list(sent.headers)

    @door.post("/ticket")
    @describe(schemas.Ticket, tags=["service"])
    def ticket() -> Response:
        """A ticket that opens one socket, for browsers, which cannot send a token with it."""
        return json({"ticket": new_ticket(service), "expires_in_seconds": TICKET_SECONDS})

    @door.get("/about")
    @describe(schemas.About, tags=["service"])
    def about() -> Response:
        """The service itself; needs no token."""
        flower = settings.flower_url or (f"http://127.0.0.1:{settings.flower_port}" if settings.flower_port else None)
        return json(
            {
                "name": "Nextflow Controller",
                "version": package_version(),
                "runner": settings.runner,
                "flower_url": flower,
                "docs_url": "/docs",
                "auth_required": bool(settings.auth_tokens),
            }
        )

    @door.get("/catalog")
    @describe(schemas.Catalog, tags=["service"])
    def catalog() -> Response:
        """Pipelines that can be started by name."""
        return json({"workflows": read_catalog(settings.pipelines_dir)})

    return door


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
    entry = {name: info[name] for name in schemas.HistoryEntry.model_fields if name in info}
    return entry | {"duration_seconds": run.duration_seconds}


def _log_lines(service: Service, run_id: str, since: int) -> list[str]:
    lines: list[str] = []
    while page := service.feed.read(run_id, since, _LOG_PAGE):
        since = page[-1][0]
        for _, frame in page:
            lines += _messages(frame)
    return lines


def _tail(service: Service, run_id: str, wanted: int, since: int) -> list[str]:
    blocks: list[list[str]] = []
    found, before = 0, None
    while found < wanted and (page := service.feed.read_back(run_id, before, _LOG_PAGE)):
        before = page[-1][0]
        for number, frame in page:
            if number > since:
                blocks.append(_messages(frame))
                found += len(blocks[-1])
        if before <= since:
            break
    lines = [line for block in reversed(blocks) for line in block]
    return lines[len(lines) - wanted :] if wanted < len(lines) else lines


def _messages(frame: bytes) -> list[str]:
    event = orjson.loads(frame)
    return [line["message"] for line in event["data"]["lines"]] if event["type"] == events.EventType.LOG else []
