"""The API on a real Redis, without a worker: every call of the contract, its shapes, and its errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ends import finish
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, TypeAdapter
from werkzeug.test import TestResponse

from shared import events, times
from shared.events import LogLine
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.places import run_places
from shared.redis_client import Client
from shared.runs import Run, RunStatus
from shared.settings import Settings, load
from shared.store import Store
from web import answers, schemas
from web.app import create_app

MakeRun = Callable[..., Run]
Ended = Callable[..., Run]
API = "/api/v1/pipeline"
SECRET = "hunter2-the-secret"
TASK = {
    "task_id": 1, "hash": "aa/000001", "name": "A (1)", "process": "A", "tag": "1", "status": "COMPLETED",
    "exit": 0, "attempt": 1, "submit": "2026-01-31T00:00:00.000Z",
}  # fmt: skip


def checked(response: TestResponse, model: Any, status: int = 200) -> Any:
    """The JSON of an answer, once its status and its shape are right by the model."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    TypeAdapter(model).validate_python(response.json, strict=False)
    if isinstance(model, type) and issubclass(model, BaseModel):
        assert set(response.json or {}) <= set(model.model_fields)
    return response.json


def problem(response: TestResponse, status: int) -> dict[str, Any]:
    """The problem that an answer tells, once it is one by RFC 9457."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    found: dict[str, Any] = response.json or {}
    answers.Problem.model_validate(found)
    assert (found["type"], found["status"]) == ("about:blank", status)
    assert found["title"]
    assert found["detail"]
    assert "Traceback" not in response.text
    return found


@pytest.fixture
def document(api: FlaskClient) -> dict[str, Any]:
    """The OpenAPI document that the service serves."""
    return api.get("/openapi.json").json or {}


@pytest.fixture
def told(store: Store, feed: Feed, leases: Leases, make_run: MakeRun) -> Run:
    """An active run that has said ninety lines, had a task and one error."""
    store.submit(run := make_run(parameters={"n": 3}, triggered_by="me"), "queue")
    held = leases.acquire(run.run_id)
    assert held is not None
    lines = [
        LogLine("2026-01-31T00:00:00Z", f"line {n} ž", run.job_name, "nextflow", "stdout", n) for n in range(1, 91)
    ]
    process = {"name": "A", "pending": 0, "running": 0, "succeeded": 1, "cached": 0, "failed": 0, "retries": 0}
    progress = {"percent": 50, "completed": 1, "total": 1, "processes": [process | {"aborted": 0}], "executor": None}
    said = [
        events.log(run.run_id, lines[:50], times.now()),
        events.error(run.run_id, times.now(), level="warning", message="WARN: x", source="nextflow"),
        events.log(run.run_id, lines[50:], times.now()),
        events.progress(run.run_id, progress, times.now()),
    ]
    feed.append(run.run_id, held.fence, Batch(1, {}, said, [(1, TASK), (2, TASK | {"task_id": 2})], progress))
    return run


def test_a_run_is_started_joined_queued_and_refused(api: FlaskClient) -> None:
    """The four things that can become of a submission, each with its status code and its answer."""
    first = checked(api.post(f"{API}/run", json={"pipeline": "hello"}), answers.RunAccepted, 202)
    assert (first["status"], first["attached"]) == ("starting", False)
    assert "queue_position" not in first
    assert first["websocket_url"] == f"{API}/stream?run_id={first['run_id']}"
    joined = checked(api.post(f"{API}/run", json={"pipeline": "other"}), answers.RunAccepted, 200)
    assert first["run_id"] in joined["detail"]
    assert joined == first | {"attached": True, "detail": joined["detail"]}
    queued = checked(api.post(f"{API}/run", json={"pipeline": "other", "when_busy": "queue"}), answers.RunAccepted, 202)
    assert (queued["status"], queued["queue_position"], queued["attached"]) == ("queued", 1, False)
    refused = problem(api.post(f"{API}/run", json={"pipeline": "other", "when_busy": "reject"}), 409)
    assert first["run_id"] in refused["detail"]


def test_the_same_request_with_its_key_makes_one_run(api: FlaskClient) -> None:
    """An answer that was lost is given again; the key with another request is a mistake."""
    headers = {"Idempotency-Key": "žluť key".encode().decode("latin-1")}
    first = checked(api.post(f"{API}/run", json={"pipeline": "hello"}, headers=headers), answers.RunAccepted, 202)
    assert api.post(f"{API}/run", json={"pipeline": "hello"}, headers=headers).json == first
    assert len(api.get(f"{API}/history").json or []) == 1
    reused = problem(api.post(f"{API}/run", json={"pipeline": "other"}, headers=headers), 422)
    assert reused["errors"][0]["loc"] == ["header", "Idempotency-Key"]
    for key in ("", "x" * 256):
        problem(api.post(f"{API}/run", json={"pipeline": "hello"}, headers={"Idempotency-Key": key}), 422)


def test_a_key_outlives_the_run_it_stands_for(api: FlaskClient, redis: Client, store: Store) -> None:
    """A request that is sent again after its run was dropped from the history is answered, not lost."""
    headers = {"Idempotency-Key": "key"}
    first = api.post(f"{API}/run", json={"pipeline": "hello"}, headers=headers).json or {}
    finish(store, first["run_id"], RunStatus.FAILED)
    redis.delete(f"nfc:run:{first['run_id']}")
    assert api.post(f"{API}/run", json={"pipeline": "hello"}, headers=headers).status_code in (200, 202)


def test_what_runs_is_shown(api: FlaskClient, told: Run, store: Store, make_run: MakeRun) -> None:
    """Status and active tell the run, how far it is, the end of its log and the queue."""
    store.submit(waiting := make_run(triggered_by="you"), "queue")
    for path in ("/status", "/active", f"/status?run_id={told.run_id}"):
        shown = checked(api.get(API + path), answers.StatusAnswer)
        assert (shown["active"], shown["run"]["run_id"], shown["progress_percent"]) == (True, told.run_id, 50)
        assert shown["log_preview"] == [f"line {number} ž" for number in range(71, 91)]
        (entry,) = shown["queue"]
        assert (entry["run_id"], entry["position"], entry["triggered_by"]) == (waiting.run_id, 1, "you")
    shown = checked(api.get(f"{API}/status?run_id={waiting.run_id}"), answers.StatusAnswer)
    assert (shown["active"], shown["run"]["status"], shown["log_preview"]) == (False, "queued", [])


def test_what_comes_line_by_line_is_shown_too(api: FlaskClient, told: Run, feed: Feed) -> None:
    """The newest lines of a run are in one event or in many."""
    log = [LogLine("2026-01-31T00:00:00Z", f"more {n}", told.job_name, "nextflow", "stdout", 90 + n) for n in range(15)]
    feed.append(told.run_id, 1, Batch(2, {}, [events.log(told.run_id, [line], times.now()) for line in log]))
    shown = checked(api.get(f"{API}/status"), answers.StatusAnswer)
    assert shown["log_preview"] == [*(f"line {n} ž" for n in range(86, 91)), *(line.message for line in log)]


def test_an_idle_service_says_so(api: FlaskClient, ended: Ended) -> None:
    """With no run at all there is none to show; after one has ended, status shows it and active does not."""
    for path in ("/status", "/active"):
        shown = checked(api.get(API + path), answers.StatusAnswer)
        assert (shown["active"], shown["run"], shown["progress_percent"]) == (False, None, 0)
    run = ended()
    assert checked(api.get(f"{API}/status"), answers.StatusAnswer)["run"]["run_id"] == run.run_id
    assert checked(api.get(f"{API}/active"), answers.StatusAnswer)["run"] is None


def test_a_run_is_cancelled(api: FlaskClient, store: Store, make_run: MakeRun) -> None:
    """Nothing to cancel is no error; a queued run ends, an active one is asked to, an ended one stays."""
    idle = checked(api.delete(f"{API}/cancel"), answers.CancelAnswer)
    assert (idle["run_id"], idle["cancelled"]) == (None, False)
    store.submit(first := make_run(), "queue")
    store.submit(second := make_run(), "queue")
    queued = checked(api.delete(f"{API}/cancel?run_id={second.run_id}"), answers.CancelAnswer)
    assert (queued["status"], queued["cancelled"]) == ("cancelled", True)
    active = checked(api.delete(f"{API}/cancel"), answers.CancelAnswer)
    assert (active["run_id"], active["status"], active["cancelled"]) == (first.run_id, "cancelling", True)
    finish(store, first.run_id, RunStatus.CANCELLED, message="Done.")
    late = checked(api.delete(f"{API}/cancel?run_id={first.run_id}"), answers.CancelAnswer)
    assert (late["status"], late["cancelled"]) == ("cancelled", False)
    assert late["detail"]


def test_the_history_is_paged(api: FlaskClient, ended: Ended) -> None:
    """Newest first, by pages that begin before a run or a time, and of one status."""
    runs = [ended(RunStatus.FAILED if number == 1 else RunStatus.SUCCEEDED) for number in range(4)][::-1]
    ids = [run.run_id for run in runs]
    entries = checked(api.get(f"{API}/history"), list[answers.HistoryEntry])
    assert {entry["run_id"] for entry in entries} == set(ids)
    assert set(entries[0]) == set(answers.HistoryEntry.model_fields)
    newest = [entry["run_id"] for entry in entries]
    assert [entry["run_id"] for entry in api.get(f"{API}/history?limit=1").json or []] == newest[:1]
    rest = api.get(f"{API}/history?before={newest[1]}").json or []
    assert [entry["run_id"] for entry in rest] == newest[2:]
    failed = api.get(f"{API}/history?status=failed").json or []
    assert [entry["status"] for entry in failed] == ["failed"]
    assert api.get(f"{API}/history?before=2020-01-01T00:00:00Z").json == []
    assert len(api.get(f"{API}/history?before=2999-01-01").json or []) == 4
    for unknown in ("run-none", "run-%00"):
        problem(api.get(f"{API}/history?before={unknown}"), 404)
    assert problem(api.get(f"{API}/history?before=yesterday"), 422)["errors"][0]["loc"] == ["before"]


def test_one_run_is_shown_in_detail(api: FlaskClient, told: Run) -> None:
    """A run, its tasks, its log and its events."""
    info = checked(api.get(f"{API}/runs/{told.run_id}"), answers.RunInfo)
    assert (info["parameters"], info["job_name"]) == ({"n": 3}, f"nextflow-{told.run_id}")
    tasks = checked(api.get(f"{API}/runs/{told.run_id}/tasks"), answers.TasksAnswer)
    assert (len(tasks["tasks"]), tasks["total"], tasks["truncated"]) == (2, 2, False)
    newest = checked(api.get(f"{API}/runs/{told.run_id}/tasks?limit=1"), answers.TasksAnswer)
    assert ([task["task_id"] for task in newest["tasks"]], newest["truncated"]) == ([2], True)
    found = checked(api.get(f"{API}/runs/{told.run_id}/events"), answers.EventsAnswer)
    assert [event["id"] for event in found["events"]] == [1, 2, 3, 4, 5]
    assert [event["type"] for event in found["events"]] == ["status", "log", "error", "log", "progress"]
    assert (found["first_id"], found["last_id"]) == (1, 5)
    later = checked(api.get(f"{API}/runs/{told.run_id}/events?since=3&limit=1"), answers.EventsAnswer)
    assert [event["id"] for event in later["events"]] == [4]
    last = found["last_id"]
    for query, wanted in (
        (f"before={last}&limit=2", [last - 2, last - 1]),
        (f"before={last}&since={last - 2}", [last - 1]),
        (f"before={2**53}&limit=1", [last]),
        ("before=1", []),
    ):
        back = checked(api.get(f"{API}/runs/{told.run_id}/events?{query}"), answers.EventsAnswer)
        assert [event["id"] for event in back["events"]] == wanted, query


@pytest.mark.parametrize(
    ("query", "lines"),
    [("", (1, 90)), ("?tail=3", (88, 90)), ("?tail=60", (31, 90)), ("?tail=0", (1, 0)), ("?since=2", (51, 90)),
     ("?since=5", (1, 0)), ("?since=2&tail=60", (51, 90)), ("?tail=1000", (1, 90))],
)  # fmt: skip
def test_the_log_is_text(api: FlaskClient, told: Run, query: str, lines: tuple[int, int]) -> None:
    """The kept log, a line a line, whole or its end or what came after an event."""
    response = api.get(f"{API}/runs/{told.run_id}/logs{query}")
    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    assert response.text == "".join(f"line {number} ž\n" for number in range(lines[0], lines[1] + 1))


def test_tasks_of_an_ended_run_have_ended(
    api: FlaskClient, store: Store, feed: Feed, leases: Leases, make_run: MakeRun
) -> None:
    """A task whose end nobody told ended with its run."""
    store.submit(run := make_run(), "queue")
    held = leases.acquire(run.run_id)
    assert held is not None
    feed.append(run.run_id, held.fence, Batch(1, {}, tasks=[(1, TASK | {"status": "SUBMITTED", "exit": None})]))
    assert (api.get(f"{API}/runs/{run.run_id}/tasks").json or {})["tasks"][0]["status"] == "SUBMITTED"
    finish(store, run.run_id, RunStatus.FAILED)
    assert (api.get(f"{API}/runs/{run.run_id}/tasks").json or {})["tasks"][0]["status"] == "ABORTED"


def test_artifacts_are_listed_and_sent(api: FlaskClient, settings: Settings, ended: Ended) -> None:
    """Reports and outputs are found, also as links into the work directory, and what lies elsewhere is not."""
    run = ended()
    places = run_places(settings.data_dir, run.run_id, run.session_id)
    for folder in (places.reports, places.results / "ž & x", places.launch / "work"):
        folder.mkdir(parents=True)
    (places.reports / "report.html").write_text("<script>1</script>")
    (places.launch / "work" / "made.txt").write_text("made")
    (places.results / "ž & x" / "a?b.txt").symlink_to(places.launch / "work" / "made.txt")
    (settings.data_dir / "outside").write_text("no")
    (places.results / "out").symlink_to(settings.data_dir / "outside")
    found = checked(api.get(f"{API}/runs/{run.run_id}/artifacts"), answers.ArtifactsAnswer)
    assert [(item["name"], item["kind"]) for item in found["artifacts"]] == [
        ("report.html", "report"),
        ("ž & x/a?b.txt", "output"),
    ]
    report, output = (api.get(item["url"]) for item in found["artifacts"])
    assert report.headers["Content-Security-Policy"] == "sandbox allow-scripts"
    assert output.text == "made"
    api.post(f"{API}/run", json={"pipeline": run.pipeline})
    waits = (api.post(f"{API}/run", json={"resume": run.run_id, "when_busy": "queue"}).json or {})["run_id"]
    left = checked(api.get(f"{API}/runs/{waits}/artifacts"), answers.ArtifactsAnswer)["artifacts"]
    assert left == []  # those are of the run that it resumes, in whose session's directory they lie
    problem(api.get(found["artifacts"][1]["url"].replace(run.run_id, waits)), 404)
    for name in ("out", "../outside", "%2e%2e/outside", "none", "", "a%00b", "x" * 300, "x/" * 200):
        problem(api.get(f"{API}/runs/{run.run_id}/artifacts/output/{name}"), 404)


def test_a_run_resumes_another(api: FlaskClient, store: Store, ended: Ended) -> None:
    """A resumed run shares session and request with the earlier one, but for what is given anew."""
    earlier = ended(parameters={"n": 3}, revision="v1")
    answer = api.post(f"{API}/run", json={"resume": earlier.run_id, "revision": "v2"}).json or {}
    info = api.get(f"{API}/runs/{answer['run_id']}").json or {}
    assert (info["session_id"], info["resumes"], info["pipeline"]) == (earlier.session_id, True, "hello")
    assert store.get(answer["run_id"]).run.session_may_be_new
    assert (info["parameters"], info["revision"]) == ({"n": 3}, "v2")
    refused = problem(api.post(f"{API}/run", json={"resume": answer["run_id"], "when_busy": "queue"}), 422)
    assert refused["errors"][0]["loc"] == ["resume"]
    for run_id in ("run-none", f"{earlier.run_id}:events"):
        problem(api.post(f"{API}/run", json={"resume": run_id, "when_busy": "queue"}), 404)


def test_the_rest_of_the_service_answers(api: FlaskClient, settings: Settings) -> None:
    """About, catalog, ticket, alive, metrics and the pages."""
    about = checked(api.get(f"{API}/about"), answers.About)
    assert (about["runner"], about["auth_required"]) == ("local", False)
    assert isinstance(checked(api.get(f"{API}/catalog"), answers.Catalog)["workflows"], list)
    assert checked(api.post(f"{API}/ticket"), answers.Ticket)["expires_in_seconds"] == 30
    assert api.get("/healthz").json == {"status": "alive"}
    figures = api.get("/metrics").text
    for line in ("nfctl_redis_up 1.0", "nfctl_active_runs 0.0", "nfctl_queued_runs 0.0"):
        assert line in figures
    assert 'nfctl_runs_total{status="succeeded"} 0.0' in figures
    for page in ("/", "/docs/"):
        response = api.get(page)
        assert (response.status_code, response.mimetype) == (200, "text/html")


def test_a_broken_catalog_is_an_empty_one(redis: Client, settings: Settings, tmp_path: Path) -> None:
    """Whatever stands in the catalog's file, the call answers."""
    api = create_app(replace(settings, pipelines_dir=tmp_path)).test_client()
    some = ("workflows: [{pipeline: hello}, 3]", "workflows: [{pipeline: hello}, {pipeline: [a]}, {pipeline: 7}]")
    for text in ("", "[", "workflows: 3", "workflows: {a: 1}", "- 1", *some, "a: *b"):
        (tmp_path / "test_workflows.yaml").write_text(text)
        found = checked(api.get(f"{API}/catalog"), answers.Catalog)["workflows"]
        assert found == ([{"pipeline": "hello"}] if "hello" in text else [])


def test_health_says_what_is_missing(api: FlaskClient) -> None:
    """Without a worker the service is not ready, and says which part is not."""
    response = api.get("/health")
    checks = (response.json or {})["checks"]
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    assert (checks["redis"]["ok"], checks["worker"]["ok"], checks["runner"]["ok"]) == (True, False, False)
    assert "worker" in checks["worker"]["detail"]


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    """The OpenAPI document is valid as version 3.1 and holds every call of the contract."""
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    promised = {"run": "post", "status": "get", "active": "get", "cancel": "delete", "history": "get"}
    details = ["", "/tasks", "/logs", "/events", "/artifacts"]
    calls = {f"{API}/{path}": method for path, method in promised.items()}
    calls |= {f"{API}/runs/{{run_id}}{detail}": "get" for detail in details}
    for path, method in calls.items():
        assert method in document["paths"][path], path


def test_answers_are_as_documented(api: FlaskClient, document: dict[str, Any], told: Run) -> None:
    """Each answer, good or bad, has the schema that the document gives for its path and status."""
    one = f"{API}/runs/{{run_id}}"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("post", f"{API}/run", {"json": {"pipeline": "hello"}}),
        ("post", f"{API}/run", {"json": {"pipeline": "hello", "when_busy": "queue"}}),
        ("post", f"{API}/run", {"json": {"pipeline": "hello", "when_busy": "reject"}}),
        ("post", f"{API}/run", {"json": {"pipeline": ""}}),
        ("post", f"{API}/run", {"data": "{", "content_type": "application/json"}),
        ("post", f"{API}/run", {"data": "{}"}),
        ("post", f"{API}/run", {"data": b"x" * 1_000_000, "content_type": "application/json"}),
        ("get", f"{API}/status", {}),
        ("get", f"{API}/status", {"query_string": "run_id=run-none"}),
        ("get", f"{API}/active", {}),
        ("get", f"{API}/history", {}),
        ("get", f"{API}/history", {"query_string": "limit=0"}),
        *(("get", one + detail, {}) for detail in ("", "/tasks", "/events", "/artifacts")),
        ("delete", f"{API}/cancel", {}),
        ("post", f"{API}/ticket", {}),
        ("get", f"{API}/about", {}),
        ("get", f"{API}/catalog", {}),
    ]
    for method, path, arguments in requests:
        response = api.open(path.format(run_id=told.run_id), method=method, **arguments)
        described = document["paths"][path][method]["responses"][str(response.status_code)]["content"]
        schema = described[response.mimetype]["schema"] | {"components": document["components"]}
        OAS31Validator(schema).validate(response.json)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"[" * 200_000, "content_type": "application/json"}, 400),
        ({"data": b'{"pipeline":"\\ud800"}', "content_type": "application/json"}, 400),
        ({"data": b'{"pipeline":"hello","parameters":{"n":1e999}}', "content_type": "application/json"}, 422),
        ({"data": b"{}", "content_type": "text/plain"}, 415),
        ({"data": {"pipeline": "hello"}}, 415),
        ({"data": b"x" * 1_000_000, "content_type": "application/json"}, 413),
        ({"json": {"pipeline": "hello", "colour": "red"}}, 422),
        ({"json": {"pipeline": 7}}, 422),
        ({"json": {"pipeline": "-with-docker"}}, 422),
        ({"json": {"pipeline": "@/etc/hostname"}}, 422),
        ({"json": {"pipeline": "hello", "revision": "@/etc/hostname"}}, 422),
        ({"json": {"pipeline": "https://me:password@git.example/lab/flow"}}, 422),
        ({"json": {"pipeline": "https://token@git.example/lab/flow"}}, 422),
        ({"json": {"pipeline": "https://me:pass/word@git.example/lab/flow"}}, 422),
        ({"json": {"pipeline": "me:password@git.example/lab/flow"}}, 422),
        ({"json": {"pipeline": "hello", "revision": "me:password@git"}}, 422),
        ({"json": {"pipeline": "hello", "workdir": "s3://me:password@bucket/work"}}, 422),
        ({"json": {"pipeline": "hello", "parameters": {"n": [2**63]}}}, 422),
        ({"json": {"pipeline": "a\nb"}}, 422),
        ({"json": {"pipeline": "a\0b"}}, 422),
        ({"json": {"pipeline": "hello", "parameters": {"x\n": 1}}}, 422),
        ({"json": {"pipeline": "hello", "triggered_by": "a\u2028"}}, 422),
        ({"json": ["hello"]}, 422),
        ({"data": b'{"a":' * 500 + b"1" + b"}" * 500, "content_type": "application/json"}, 400),
        ({"json": {"pipeline": "hello", "parameters": json.loads('{"x":' * 100 + "1" + "}" * 100)}}, 422),
    ],
)  # fmt: skip
def test_a_bad_submission_is_a_problem(api: FlaskClient, arguments: dict[str, Any], status: int) -> None:
    """Each kind of mistake has its status; bad input names the place; nothing is taken in."""
    found = problem(api.post(f"{API}/run", **arguments), status)
    if status == 422:
        assert all(set(error) == {"loc", "msg"} for error in found["errors"])
        assert found["errors"]
    assert api.get(f"{API}/history").json == []


def test_a_run_from_nowhere_is_not_found(api: FlaskClient, told: Run) -> None:
    """404 for ids that nobody knows, also those made up to meet another key of Redis."""
    for run_id in (
        "run-none",
        "..",
        "%00",
        "%ff",
        "ž",
        "a b",
        "x" * 500,
        f"{told.run_id}:events",
        f"{told.run_id}:lease",
    ):
        for detail in ("", "/tasks", "/logs", "/events", "/artifacts", "/artifacts/report/x"):
            if run_id != "..":
                problem(api.get(f"{API}/runs/{run_id}{detail}"), 404)
        if len(run_id) <= 128:
            problem(api.get(f"{API}/status?run_id={run_id}"), 404)
            problem(api.delete(f"{API}/cancel?run_id={run_id}"), 404)


def test_other_mistakes_are_problems_too(api: FlaskClient) -> None:
    """An unknown path and a wrong method are told in the same shape."""
    problem(api.get(f"{API}/nothing"), 404)
    problem(api.get("/nothing"), 404)
    wrong = api.delete(f"{API}/run")
    problem(wrong, 405)
    assert "POST" in wrong.headers["Allow"]
    assert api.get(f"{API}/stream").status_code in (400, 426)


@pytest.mark.parametrize(
    "query",
    ["/history?limit=0", "/history?limit=101", "/history?limit=x", "/history?limit=1&limit=2", "/history?x=1",
     "/history?status=done", "/status?id=1", "/cancel?run=1", f"/status?run_id={'x' * 129}"],
)  # fmt: skip
def test_a_bad_query_is_a_problem(api: FlaskClient, query: str) -> None:
    """422, with the name of what is wrong."""
    response = api.delete(API + query) if "cancel" in query else api.get(API + query)
    assert problem(response, 422)["errors"][0]["loc"] == [query.partition("?")[2].partition("=")[0]]


@pytest.mark.parametrize(
    "before", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2026-W05-1", "1970-01-01"]
)
def test_times_at_the_edge_are_answered(api: FlaskClient, before: str) -> None:
    """Any time that can be read is a time before which runs may be."""
    assert api.get(f"{API}/history?before={before}").status_code in (200, 422)


def test_secrets_are_never_told(api: FlaskClient, store: Store) -> None:
    """A secret in parameters or in the config is in no answer and no event."""
    wanted = {
        "pipeline": "hello",
        "parameters": {"password": SECRET, "deep": [{"api_key": SECRET}], "db": f"postgres://me:{SECRET}@db/x"},
        "config": f"aws.secretKey = '{SECRET}'",
        "when_busy": "queue",
    }
    said = [api.post(f"{API}/run", json=wanted) for _ in range(2)]
    ids = [(response.json or {})["run_id"] for response in said]
    said += [api.get(API + path) for path in ("/status", "/active", "/history")]
    said += [api.get(f"{API}/runs/{run_id}{detail}") for run_id in ids for detail in ("", "/events", "/logs", "/tasks")]
    said += [api.delete(f"{API}/cancel")]
    finish(store, ids[0], RunStatus.CANCELLED)
    said += [api.get(f"{API}/runs/{ids[0]}/events"), api.get("/metrics")]
    assert all(response.status_code < 300 for response in said)
    assert [response.text for response in said if SECRET in response.text] == []
    assert store.get(ids[0]).run.parameters["password"] == SECRET


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
submissions = st.dictionaries(st.sampled_from([*schemas.RunRequest.model_fields]) | st.text(), json_values, max_size=5)
parameters = st.builds(
    lambda values: {"pipeline": "hello", "parameters": values}, st.dictionaries(st.text(max_size=5), json_values)
)


@pytest.fixture
def patient_api(settings: Settings) -> FlaskClient:
    """A client of the API that may ask as often as it likes."""
    return create_app(replace(settings, rate_limit="1000000/minute")).test_client()


@examples(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=submissions | parameters | json_values)
def test_no_body_breaks_the_service(patient_api: FlaskClient, body: Any) -> None:
    """Any JSON is taken or refused; what was taken can be read."""
    response = patient_api.post(f"{API}/run", data=json.dumps(body), content_type="application/json")
    assert response.status_code in (200, 202, 400, 422), response.text
    assert patient_api.get(f"{API}/status").status_code == 200


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40), data=st.binary(max_size=40))
def test_no_text_breaks_the_service(patient_api: FlaskClient, text: str, data: bytes) -> None:
    """Any text as an id, a query, a key or a body is answered with less than 500."""
    said = [
        patient_api.get(f"{API}/status", query_string={"run_id": text}),
        patient_api.get(f"{API}/history", query_string={"before": text}),
        patient_api.get(f"{API}/history", query_string={text: text}),
        patient_api.post(f"{API}/run", data=data, content_type="application/json"),
    ]
    assert [response.text for response in said if response.status_code >= 500] == []


@pytest.fixture
def away() -> FlaskClient:
    """A client of an API whose Redis does not answer."""
    return create_app(load({"REDIS_URL": "redis://127.0.0.1:1/0"})).test_client()


def test_without_redis_the_service_says_so(away: FlaskClient) -> None:
    """Each call that needs Redis is 503 with the time to wait; those that need none are answered."""
    said = [away.get(API + path) for path in ("/status", "/active", "/history", "/runs/x", "/runs/x/logs")]
    said += [
        away.post(f"{API}/run", json={"pipeline": "hello"}),
        away.delete(f"{API}/cancel"),
        away.post(f"{API}/ticket"),
    ]
    for response in said:
        problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
    assert away.get("/healthz").status_code == 200
    assert away.get(f"{API}/about").status_code == 200
    assert "nfctl_redis_up 0.0" in away.get("/metrics").text
    health = away.get("/health")
    assert (health.status_code, (health.json or {})["checks"]["redis"]["ok"]) == (503, False)
    problem(away.post(f"{API}/run", json={"pipeline": ""}), 422)


@pytest.mark.parametrize("redis_is", ["there", "away"])
def test_requests_are_limited(settings: Settings, redis_is: str) -> None:
    """Who asks too often is told how long to wait, with and without Redis; health and metrics are free."""
    url = settings.redis_url if redis_is == "there" else "redis://127.0.0.1:1/0"
    api = create_app(replace(settings, redis_url=url, rate_limit="5/hour")).test_client()
    left = []
    for _ in range(5):
        response = api.get(f"{API}/about")
        assert response.status_code == 200
        assert response.headers["RateLimit-Limit"] == "5"
        left.append(int(response.headers["RateLimit-Remaining"]))
    assert left == [4, 3, 2, 1, 0]
    refused = api.get(f"{API}/catalog")
    detail = "Too many requests: a client may make 5 per 1 hour (RATE_LIMIT)."
    assert problem(refused, 429)["detail"] == detail
    assert 0 < int(refused.headers["Retry-After"]) <= 3601
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert int(refused.headers["RateLimit-Reset"]) > 0
    for path in ("/healthz", "/metrics", "/", "/openapi.json"):
        free = api.get(path)
        assert (free.status_code, "RateLimit-Limit" in free.headers) == (200, False)


def test_the_limit_outlives_redis(own_redis: Any, tmp_path: Path) -> None:
    """When Redis dies between two requests, the next one is still answered."""
    made = load({"REDIS_URL": own_redis.url, "DATA_DIR": str(tmp_path), "RATE_LIMIT": "5/hour"})
    api = create_app(made).test_client()
    assert api.get(f"{API}/about").status_code == 200
    own_redis.kill()
    assert [api.get(f"{API}/about").status_code for _ in range(6)] == [200] * 5 + [429]


@pytest.mark.parametrize(
    "pipeline", ["git@git.example:lab/flow", "ssh://git@git.example/lab/flow", "lab/flow", "ünï/cödé"]
)
def test_a_name_without_a_password_is_taken(api: FlaskClient, pipeline: str) -> None:
    """The user of SSH is no secret."""
    assert api.post(f"{API}/run", json={"pipeline": pipeline}).status_code == 202
