"""The HTTP door to one run: its tasks, log, events and files."""

from typing import Any

import orjson
from flask import Blueprint, Response

from shared import events
from shared.places import RunPlaces, run_places
from shared.runs import Run
from web import answers, schemas
from web.artifacts import list_artifacts, send_artifact
from web.openapi import NOT_FOUND, describe
from web.problems import json
from web.schemas import parse_query
from web.status import API
from web.wiring import Service

_LOG_PAGE = 100


def details(service: Service) -> Blueprint:
    """The blueprint of everything under `/runs/<run_id>`."""
    door = Blueprint("details", __name__, url_prefix=API)
    store, feed = service.store, service.feed

    def places_of(run: Run) -> RunPlaces:
        return run_places(service.settings.data_dir, run.run_id, run.session_id)

    @door.get("/runs/<run_id>")
    @describe(answers.RunInfo, NOT_FOUND, tags=["runs"])
    def one(run_id: str) -> Response:
        """One run."""
        return json(store.get(run_id).run.info())

    @door.get("/runs/<run_id>/tasks")
    @describe(answers.TasksAnswer, NOT_FOUND, query=schemas.TasksQuery, tags=["details"])
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
    @describe(answers.EventsAnswer, NOT_FOUND, query=schemas.EventsQuery, tags=["details"])
    def run_events(run_id: str) -> Response:
        """Kept events after an id, or the newest before one, in order."""
        query = parse_query(schemas.EventsQuery)
        kept = store.get(run_id)
        last_id = kept.last_id
        first_id = feed.first_id(run_id, last_id)
        last_id = max(last_id, first_id - 1)  # more may have come, and older ones gone, between the two looks
        frames = b",".join(_events(service, run_id, query))
        head = orjson.dumps({"run_id": run_id, "status": kept.run.status, "first_id": first_id, "last_id": last_id})
        return Response(head[:-1] + b',"events":[' + frames + b"]}", content_type="application/json")

    @door.get("/runs/<run_id>/artifacts")
    @describe(answers.ArtifactsAnswer, NOT_FOUND, tags=["details"])
    def artifacts(run_id: str) -> Response:
        """The files a run left: Nextflow's reports, and what was published to `results`."""
        run = store.get(run_id).run
        return json(list_artifacts(run, places_of(run)))

    @door.get("/runs/<run_id>/artifacts/<any(report, output):kind>/<path:name>")
    @describe(None, NOT_FOUND, tags=["details"])
    def artifact(run_id: str, kind: str, name: str) -> tuple[Any, int, list[tuple[str, str]]]:
        """One file that a run left."""
        run = store.get(run_id).run
        sent = send_artifact(run, places_of(run), kind, name)
        # In parts, because spectree reads the whole of a Response into memory.
        return sent.response, sent.status_code, list(sent.headers)

    return door


def _events(service: Service, run_id: str, query: schemas.EventsQuery) -> list[bytes]:
    if query.before is None:
        return [frame for _, frame in service.feed.read(run_id, query.since, query.limit)]
    page = service.feed.read_back(run_id, query.before, query.limit)
    return [frame for number, frame in reversed(page) if number > query.since]


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
    # An event of a run that says much is full, and its end takes three; of one that says little it takes many.
    size = -(-wanted // events.LINES_PER_EVENT) + 4
    while found < wanted and (page := service.feed.read_back(run_id, before, min(size, _LOG_PAGE))):
        before = page[-1][0]
        for number, frame in page:
            if number > since:
                blocks.append(_messages(frame))
                found += len(blocks[-1])
        if before <= since:
            break
        size *= 4
    lines = [line for block in reversed(blocks) for line in block]
    return lines[len(lines) - wanted :] if wanted < len(lines) else lines


def _messages(frame: bytes) -> list[str]:
    event = orjson.loads(frame)
    return [line["message"] for line in event["data"]["lines"]] if event["type"] == events.EventType.LOG else []
