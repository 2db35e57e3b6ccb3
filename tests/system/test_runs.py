"""Runs on real Nextflow, from the request to their end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import times

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SLEEPER = """
process SLEEP { script: "sleep 600" }
workflow { SLEEP() }
"""


def of_type(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["type"] == type_]


def test_a_run_is_told_from_its_start_to_its_end(service: Any) -> None:
    """Every event is numbered without a hole, the statuses are in order, and `complete` is one and the last."""
    run_id = service.submit("simple-pipeline", parameters={"fast": True}, triggered_by="a test")
    info = service.ended(run_id)
    assert (info["status"], info["exit_code"], info["triggered_by"]) == ("succeeded", 0, "a test")
    events = service.events(run_id)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    statuses = [data["status"] for data in of_type(events, "status")]
    assert [status for status in statuses if status != "queued"] == ["starting", "running", "succeeded"]
    assert [event["type"] for event in events].count("complete") == 1
    assert events[-1]["type"] == "complete"
    assert events[-1]["data"]["run"] == info
    percents = [data["percent"] for data in of_type(events, "progress")]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert 100 not in percents[:-1]


def test_the_log_is_what_people_read(service: Any) -> None:
    """The kept log has each line once and no row of the trace; the whole log lies in the run's directory."""
    run_id = service.submit("simple-pipeline", parameters={"fast": True})
    service.ended(run_id)
    lines = [line for data in of_type(service.events(run_id), "log") for line in data["lines"]]
    assert [line["line"] for line in lines] == list(range(1, len(lines) + 1))
    assert service.lines(run_id) == [line["message"] for line in lines]
    assert not any("\t" in line["message"] for line in lines)
    written = (service.data_dir / "runs" / run_id / "log").read_text().splitlines()
    readable = [entry.split(" ", 3)[3] for entry in written if "\t" not in entry]
    assert readable == [line["message"] for line in lines]


def test_tasks_and_artifacts_of_a_run(service: Any) -> None:
    """Each task has its hash, status, times and memory; reports can be listed and fetched."""
    run_id = service.submit("simple-pipeline", parameters={"fast": True})
    service.ended(run_id)
    tasks = service.client.call("GET", f"/runs/{run_id}/tasks")["tasks"]
    progress = service.client.call("GET", "/status", params={"run_id": run_id})["progress"]
    assert len(tasks) == progress["completed"] == progress["total"] > 0
    for task in tasks:
        assert (task["status"], task["exit"], task["attempt"]) == ("COMPLETED", 0, 1)
        assert task["start"] <= task["complete"]
        assert task["peak_rss_bytes"] is None or task["peak_rss_bytes"] > 0
    artifacts = service.client.call("GET", f"/runs/{run_id}/artifacts")["artifacts"]
    assert {"report.html", "timeline.html"} <= {artifact["name"] for artifact in artifacts}
    for artifact in artifacts:
        answer = service.get(artifact["url"])
        assert (answer.status_code, len(answer.content)) == (200, artifact["size"])


FAILURES = {
    "no such pipeline": (None, "Cannot find script file", 1),
    "a syntax error": ("workflow { this is (not a script", "", 1),
    "a failing process": ('process BAD { script: "echo oops >&2; exit 7" }\nworkflow { BAD() }', "exit status (7)", 1),
    "a missing program": ('process BAD { script: "no_such_program" }\nworkflow { BAD() }', "exit status (127)", 1),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_told_in_words(service: Any, pipeline: Callable[[str], str], tmp_path: Path, what: str) -> None:
    """The run is failed, its message names the cause, and one error event has the whole of it."""
    text, cause, code = FAILURES[what]
    run_id = service.submit(pipeline(text) if text else str(tmp_path / "none.nf"))
    info = service.ended(run_id)
    assert (info["status"], info["exit_code"]) == ("failed", code)
    assert info["message"]
    assert cause in info["message"]
    errors = [data for data in of_type(service.events(run_id), "error") if data["level"] == "error"]
    assert len(errors) == 1
    assert cause in errors[0]["message"]
    assert service.of_run(run_id) == []


def test_retries_and_ignored_failures_are_counted_as_such(service: Any, pipeline: Callable[[str], str]) -> None:
    """A retried attempt is a retry and not a failure; an ignored failure is a failure, and the run succeeds."""
    text = """
process FLAKY {
    errorStrategy { task.attempt < 3 ? 'retry' : 'terminate' }
    maxRetries 3
    script: "exit \\$(( ${task.attempt} < 2 ? 1 : 0 ))"
}
process IGNORED { errorStrategy 'ignore'; script: "exit 3" }
workflow { FLAKY(); IGNORED() }
"""
    run_id = service.submit(pipeline(text))
    assert service.ended(run_id)["status"] == "succeeded"
    progress = service.client.call("GET", "/status", params={"run_id": run_id})["progress"]
    counts = {process["name"]: process for process in progress["processes"]}
    assert (counts["FLAKY"]["succeeded"], counts["FLAKY"]["retries"], counts["FLAKY"]["failed"]) == (1, 1, 0)
    assert (counts["IGNORED"]["failed"], counts["IGNORED"]["retries"]) == (1, 0)


def test_parameters_keep_their_types_and_names_never_become_options(
    service: Any, pipeline: Callable[[str], str]
) -> None:
    """Parameters go by file: a boolean stays one, and one named like an option is only a parameter."""
    text = """
params.flag = null
params.number = null
workflow { println "flag ${params.flag.getClass().simpleName} number ${params.number + 1} text ${params.text}" }
"""
    parameters = {"flag": False, "number": 41, "text": 'ünï "quoted" $HOME `id`', "-resume": "x", "--help": "y"}
    run_id = service.submit(pipeline(text), parameters=parameters)
    assert service.ended(run_id)["status"] == "succeeded"
    assert 'flag Boolean number 42 text ünï "quoted" $HOME `id`' in service.lines(run_id)


def test_cancel_stops_all_of_a_run(service: Any, pipeline: Callable[[str], str]) -> None:
    """A cancelled run ends as cancelled, its tasks as aborted, and no process of it is left."""
    run_id = service.submit(pipeline(SLEEPER))
    service.wait(lambda: any("Submitted process" in line for line in service.lines(run_id)), 60)
    answer = service.client.call("DELETE", "/cancel", params={"run_id": run_id})
    assert (answer["status"], answer["cancelled"]) == ("cancelling", True)
    info = service.ended(run_id)
    assert info["status"] == "cancelled"
    assert service.of_run(run_id) == []
    assert [task["status"] for task in service.client.call("GET", f"/runs/{run_id}/tasks")["tasks"]] == ["ABORTED"]
    again = service.client.call("DELETE", "/cancel", params={"run_id": run_id})
    assert (again["status"], again["cancelled"]) == ("cancelled", False)
    assert [event["type"] for event in service.events(run_id)].count("complete") == 1


def test_cancel_at_the_very_start_and_in_the_queue(service: Any, pipeline: Callable[[str], str]) -> None:
    """A run that starts, and one that waits behind it, end as cancelled and never start."""
    first, second = service.submit(pipeline(SLEEPER)), service.submit("hello")
    assert service.client.call("DELETE", "/cancel", params={"run_id": second})["status"] == "cancelled"
    service.client.call("DELETE", "/cancel", params={"run_id": first})
    assert service.ended(first)["status"] == "cancelled"
    assert [event["type"] for event in service.events(second)] == ["status", "status", "complete"]
    assert service.of_run(first) == service.of_run(second) == []
    service.wait(lambda: service.client.call("GET", "/active")["run"] is None)
    idle = service.client.call("DELETE", "/cancel")
    assert (idle["run_id"], idle["cancelled"]) == (None, False)


def test_a_run_that_will_not_stop_is_killed(service: Any, pipeline: Callable[[str], str]) -> None:
    """Tasks that ignore SIGTERM, hide in sessions of their own and clear their environment die with the run."""
    stubborn = """
process STUBBORN { script: "trap '' TERM; setsid env -i sleep ${params.time} & setsid sleep 600 & sleep 600" }
workflow { STUBBORN() }
"""
    hidden = 600 + os.getpid() / 1e6
    run_id = service.submit(pipeline(stubborn), parameters={"time": hidden})
    service.wait(lambda: sleeping(hidden), 60)
    service.client.call("DELETE", "/cancel")
    assert service.ended(run_id)["status"] == "cancelled"
    assert service.of_run(run_id) == []
    assert not sleeping(hidden)


def sleeping(seconds: float) -> bool:
    """Whether a process sleeps for exactly so long."""
    wanted = f"sleep\0{seconds}\0".encode()
    return any(wanted == _command_line(entry) for entry in Path("/proc").glob("[0-9]*"))


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_resume_does_not_do_again_what_is_done(service: Any, pipeline: Callable[[str], str]) -> None:
    """The second run shares the session, its first task comes from the cache, and it goes on from there."""
    text = """
params.fail = true
process FIRST { output: val true; script: "true" }
process SECOND { input: val ready; script: params.fail ? "exit 1" : "true" }
workflow { SECOND(FIRST()) }
"""
    failed = service.submit(pipeline(text))
    assert service.ended(failed)["status"] == "failed"
    resumed = service.client.submit({"resume": failed, "parameters": {"fail": False}, "when_busy": "queue"})["run_id"]
    info = service.ended(resumed)
    assert (info["status"], info["session_id"]) == ("succeeded", service.run(failed)["session_id"])
    progress = service.client.call("GET", "/status", params={"run_id": resumed})["progress"]
    counts = {process["name"]: process for process in progress["processes"]}
    assert (counts["FIRST"]["cached"], counts["FIRST"]["succeeded"], counts["SECOND"]["succeeded"]) == (1, 0, 1)
    last = service.nfctl("resume", "--follow")
    assert last.returncode == 0, last.stderr
    assert "FIRST 1/1 ✔ (1 cached)  SECOND 1/1 ✔ (1 cached)" in last.stdout


def test_what_never_came_to_a_session_is_begun_by_who_resumes_it(service: Any, pipeline: Callable[[str], str]) -> None:
    """A run that was called off in the queue has left nothing to resume, and neither has one that failed before."""
    active = service.submit(pipeline(SLEEPER))
    waits = service.client.submit({"pipeline": "hello", "parameters": {"fast": True}, "when_busy": "queue"})["run_id"]
    for run_id in (waits, active):
        service.nfctl("cancel", run_id)
        service.ended(run_id)
    for _ in range(2):  # the second time there is something
        resumed = service.client.submit({"resume": waits, "when_busy": "queue"})["run_id"]
        info = service.ended(resumed)
        assert (info["status"], info["session_id"]) == ("succeeded", service.run(waits)["session_id"])
    assert [task["status"] for task in service.client.call("GET", f"/runs/{resumed}/tasks")["tasks"]] == ["CACHED"]
    unknown = service.submit("hello", resume="00000000-0000-4000-8000-000000000000")
    assert "Can't find a run with the specified id" in service.ended(unknown)["message"]


def test_a_killed_nextflow_is_a_failed_run(service: Any, pipeline: Callable[[str], str]) -> None:
    """The message says that it was killed from outside, and no task outlives it."""
    run_id = service.submit(pipeline(SLEEPER))
    service.wait(lambda: any("Submitted process" in line for line in service.lines(run_id)), 60)
    java = next(pid for pid in service.of_run(run_id) if b"nextflow" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(java, signal.SIGKILL)
    info = service.ended(run_id)
    assert (info["status"], info["exit_code"]) == ("failed", 137)
    assert "SIGKILL" in info["message"]
    assert service.of_run(run_id) == []


def test_flower_shows_the_run_as_one_celery_task(service: Any) -> None:
    """It bears the run's id, and began and ended when the run did."""
    run_id = service.submit("simple-pipeline", parameters={"fast": True})
    info = service.ended(run_id)

    def seen() -> dict[str, Any]:
        tasks = httpx.get(f"{service.flower}/api/tasks", timeout=10).json()
        return {key: task for key, task in tasks.items() if run_id in str(task["args"])}

    service.wait(lambda: any(task["state"] == "SUCCESS" for task in seen().values()))
    [(task_id, task)] = seen().items()
    assert task_id == run_id

    assert abs(task["started"] - times.from_text(info["started_at"]).timestamp()) < 5
    assert abs(task["succeeded"] - times.from_text(info["finished_at"]).timestamp()) < 2


def test_flower_tells_failed_and_cancelled_runs_apart(service: Any, pipeline: Callable[[str], str]) -> None:
    """A failed run is a failed Celery task, and a cancelled one a revoked one."""
    failed = service.submit(pipeline('process BAD { script: "exit 7" }\nworkflow { BAD() }'))
    service.ended(failed)
    cancelled = service.submit(pipeline(SLEEPER))
    service.wait(lambda: service.run(cancelled)["status"] == "running")
    service.client.call("DELETE", "/cancel", params={"run_id": cancelled})
    service.ended(cancelled)

    def state(run_id: str) -> str | None:
        task = httpx.get(f"{service.flower}/api/tasks", timeout=10).json().get(run_id)
        return str(task["state"]) if task else None

    service.wait(lambda: (state(failed), state(cancelled)) == ("FAILURE", "REVOKED"))


def test_what_nfctl_says(service: Any, tmp_path: Path) -> None:
    """Its commands work for people and, with --json, for scripts; its exit code is the run's."""
    done = service.nfctl("run", "simple-pipeline", "-p", "fast=true", "--follow")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "[100%]" in done.stdout
    run_id = service.client.call("GET", "/history", params={"limit": 1})[0]["run_id"]
    assert run_id in service.nfctl("history").stdout
    assert "COMPLETED" in service.nfctl("tasks", run_id).stdout
    assert service.nfctl("logs", run_id).stdout.splitlines() == service.lines(run_id)
    assert service.nfctl("logs", run_id, "-n", "2").stdout.splitlines() == service.lines(run_id)[-2:]
    assert run_id not in service.nfctl("history", "--status", "failed").stdout
    older = service.nfctl("history", "-n", "5", "--before", run_id)
    assert (older.returncode, run_id in service.nfctl("history", "-n", "1").stdout) == (0, True)
    assert f"{run_id} " not in older.stdout
    unknown = service.nfctl("history", "--status", "fine")
    assert (unknown.returncode, "succeeded" in unknown.stderr) == (2, True)
    assert run_id in service.nfctl("--json", "status").stdout
    (tmp_path / "bad.nf").write_text("workflow { this is (not a script")
    failed = service.nfctl("run", str(tmp_path / "bad.nf"), "--follow")
    assert failed.returncode == 1
    assert "failed after" in failed.stdout
    assert re.fullmatch(r"No task of run-\S+ is known\.\n", service.nfctl("tasks").stdout)
    missing = service.nfctl("run", str(tmp_path / "none.nf"))
    assert missing.returncode == 2
    assert f"{tmp_path / 'none.nf'} does not exist" in missing.stderr
    assert service.nfctl("tasks", "run-from-nowhere").returncode == 1
    assert service.nfctl("--url", "http://127.0.0.1:9", "status").returncode == 69


def test_a_bad_setting_stops_the_start_with_one_line(service: Any) -> None:
    """It names the key, the value and what it takes."""
    done = subprocess.run(
        [sys.executable, "-m", "nfctl", "up"],
        env=service.environment | {"PORT": "eighty"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "PORT='eighty'" in line
    assert "whole number from 1 to 65535" in line
