"""Runs on a real Kubernetes, by a service on this machine, from the request to the last pod."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster.node import Node
from service_process import Service

pytestmark = [pytest.mark.cluster, pytest.mark.system, pytest.mark.timeout(600)]

NAMESPACE = "nextflow-tests"
LINES = 300

TWO_STEPS = """
process QUICK { input: val x
 output: stdout
 script: "echo done $x" }
process SLOW { input: val x
 script: "for i in \\$(seq 1 600); do sleep 1; done" }
workflow { QUICK(channel.of(1, 2)); if( !params.quick ) SLOW(QUICK.out.last()) }
"""
# What stands on the claim alone is as what a kubelet has lost.
UNHEARD = """
workflow { println "heard"
 new File("/workspace/runs/${System.getenv('NFCTL_RUN_ID')}/log") << "not heard by anybody\\n" }
"""
NUMBERED = """
workflow { print "of another system\\r\\n"
 for( int i = 1; i <= 300; i++ ) { println "line ${i}"; sleep 40 } }
"""


@pytest.fixture
def pipeline(cluster_settings: dict[str, str], request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Writes a pipeline where the service looks for them; returns its name."""

    def write(script: str) -> str:
        name = str(request.node.name)
        directory = Path(cluster_settings["PIPELINES_DIR"]) / name
        directory.mkdir()
        (directory / "main.nf").write_text(script)
        (directory / "nextflow.config").write_text("params.quick = false")
        return name

    return write


@pytest.fixture
def service(cluster_service: Service) -> Service:
    return cluster_service


def pods_of(node: Node, run_id: str) -> list[dict[str, Any]]:
    """All pods of a run, its head's too."""
    found = node.run_kubectl("-n", NAMESPACE, "get", "pods", "-l", f"nextflow.io/runName={run_id}", "-o", "json")
    pods: list[dict[str, Any]] = json.loads(found)["items"]
    return pods


def task_runs(node: Node, run_id: str, task: str) -> bool:
    """Whether the pod of this task is at work."""
    return any(
        pod["metadata"]["labels"].get("nextflow.io/taskName") == task and pod["status"]["phase"] == "Running"
        for pod in pods_of(node, run_id)
    )


def job_of(node: Node, run_id: str) -> dict[str, Any] | None:
    found = node.run_kubectl("-n", NAMESPACE, "get", "job", f"nextflow-{run_id}", "--ignore-not-found", "-o", "json")
    job: dict[str, Any] | None = json.loads(found) if found.strip() else None
    return job


def errors_of(service: Service, run_id: str, source: str = "kubernetes") -> list[dict[str, Any]]:
    """What `error` events of that source told."""
    events = [event["data"] for event in service.events(run_id) if event["type"] == "error"]
    return [data for data in events if data["source"] == source]


def log_lines(service: Service, run_id: str) -> list[dict[str, Any]]:
    logs = [event["data"] for event in service.events(run_id) if event["type"] == "log"]
    return [line for data in logs for line in data["lines"]]


def wait_for_task(service: Service, run_id: str, process: str) -> None:
    """Until a task of this process is at work."""
    service.wait(lambda: any(process in line["message"] for line in log_lines(service, run_id)), 90)


def head_processes(run_id: str) -> list[int]:
    """Pids of Nextflow's own process in the head pod, seen from outside."""
    mark = f"NFCTL_RUN_ID={run_id}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and b"java" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_run_from_the_request_to_its_end(service: Service, node: Node) -> None:
    """It is a Job with a head pod and a pod a task; its log tells pod and container; events are whole and in order."""
    run_id = service.submit("simple-pipeline", parameters={"fast": True})
    info = service.ended(run_id, 180)
    assert (info["status"], info["exit_code"], info["job_name"]) == ("succeeded", 0, f"nextflow-{run_id}")
    events = service.events(run_id)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("complete") == 1
    assert events[-1]["type"] == "complete"
    statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
    assert [status for status in statuses if status != "queued"] == ["starting", "running", "succeeded"]
    tasks = service.client.call("GET", f"/runs/{run_id}/tasks")["tasks"]
    assert tasks
    assert {task["status"] for task in tasks} == {"COMPLETED"}
    assert all(str(task["native_id"]).startswith("nf-") for task in tasks)
    [head] = pods_of(node, run_id)
    lines = log_lines(service, run_id)
    assert {(line["pod"], line["container"], line["stream"]) for line in lines} == {
        (head["metadata"]["name"], "nextflow", "all")
    }
    assert [line["line"] for line in lines] == list(range(1, len(lines) + 1))


def test_the_log_is_what_kubectl_shows(service: Service, node: Node, claim: Path, pipeline: Callable[..., str]) -> None:
    """Each line of the container once, in order, but for the rows of the trace; all of it stays on the claim."""
    run_id = service.submit(pipeline(NUMBERED))
    service.ended(run_id, 120)
    shown = node.run_kubectl("-n", NAMESPACE, "logs", f"job/nextflow-{run_id}").splitlines()
    assert service.lines(run_id) == [line for line in shown if not line.startswith("task_id\t")]
    assert (claim / "runs" / run_id / "log").read_text().splitlines() == shown
    assert [line for line in shown if line.startswith("line ")] == [f"line {n}" for n in range(1, LINES + 1)]
    assert errors_of(service, run_id) == []


def test_what_kubernetes_does_not_give_is_told(service: Service, claim: Path, pipeline: Callable[..., str]) -> None:
    """The head's own count of what was printed is compared with what came."""
    run_id = service.submit(pipeline(UNHEARD))
    assert service.ended(run_id, 120)["status"] == "succeeded"
    assert "heard" in service.lines(run_id)
    assert "not heard by anybody\n" in (claim / "runs" / run_id / "log").read_text()
    [told] = errors_of(service, run_id)
    assert told["message"].startswith("1 of the ")
    assert f"/workspace/runs/{run_id}/log" in told["message"]


def test_a_killed_worker_loses_no_line(service: Service, pipeline: Callable[..., str]) -> None:
    """The Job goes on; another worker finds its place in the log."""
    run_id = service.submit(pipeline(NUMBERED))
    service.wait(lambda: "line 40" in service.lines(run_id), 90)
    for pid in service.children("celery -A worker.app --skip-checks worker"):
        os.kill(pid, signal.SIGKILL)
    assert service.ended(run_id, 120)["status"] == "succeeded"
    lines = [line for line in service.lines(run_id) if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, LINES + 1)]
    assert [event["type"] for event in service.events(run_id)].count("complete") == 1


def test_a_failing_pipeline_says_why(service: Service, node: Node, pipeline: Callable[..., str]) -> None:
    """The exit code is Nextflow's, the message its cause, and no pod of a task stays."""
    run_id = service.submit(pipeline('process BAD { script: "echo about to fail; exit 7" }\nworkflow { BAD() }'))
    info = service.ended(run_id, 120)
    assert (info["status"], info["exit_code"]) == ("failed", 1)
    assert "exit status (7)" in info["message"]
    assert len(pods_of(node, run_id)) == 1


def test_a_killed_nextflow_leaves_no_pod_and_can_be_resumed(
    service: Service, node: Node, pipeline: Callable[..., str]
) -> None:
    """SIGKILL leaves tasks behind; they are gone before the run is final, and what was done comes from the cache."""
    where = pipeline(TWO_STEPS)
    run_id = service.submit(where)
    # Nextflow writes its cache a moment after it has gone on.
    service.wait(lambda: task_runs(node, run_id, "SLOW"), 90)
    [java] = head_processes(run_id)
    os.kill(java, signal.SIGKILL)
    info = service.ended(run_id, 120)
    assert (info["status"], info["exit_code"]) == ("failed", 137)
    assert [pod["metadata"]["name"] for pod in pods_of(node, run_id) if pod["status"]["phase"] == "Running"] == []
    assert len(pods_of(node, run_id)) == 1
    resumed = service.submit(where, resume=run_id, parameters={"quick": True})
    assert service.ended(resumed, 120)["status"] == "succeeded"
    tasks = service.client.call("GET", f"/runs/{resumed}/tasks")["tasks"]
    assert [task["status"] for task in tasks] == ["CACHED", "CACHED"]


def test_what_never_came_to_a_session_is_begun_by_who_resumes_it(
    service: Service, pipeline: Callable[..., str]
) -> None:
    """Cancelled before Nextflow began: there is nothing to resume, and who does so begins; then there is."""
    where = pipeline('process ONE { script: "true" }\nworkflow { ONE() }')
    run_id = service.submit(where)
    service.client.call("DELETE", "/cancel", params={"run_id": run_id})
    assert service.ended(run_id, 60)["status"] == "cancelled"
    for status in ("COMPLETED", "CACHED"):
        run_id = service.submit(where, resume=run_id)
        assert service.ended(run_id, 120)["status"] == "succeeded"
        assert [task["status"] for task in service.client.call("GET", f"/runs/{run_id}/tasks")["tasks"]] == [status]


def test_a_task_out_of_memory_is_told(service: Service, pipeline: Callable[..., str]) -> None:
    """The kernel killed it, which Nextflow 24.10 does not say; Kubernetes knows."""
    script = """process EAT { memory '48 MB'
 script: "tail /dev/zero" }
workflow { EAT() }"""
    run_id = service.submit(pipeline(script))
    assert service.ended(run_id, 120)["status"] == "failed"
    [told] = [data for data in errors_of(service, run_id) if "OOMKilled" in data["message"]]
    assert (told["level"], told["task"]) == ("error", "EAT")
    assert "memory" in told["hint"]


def test_nextflow_itself_out_of_memory(service: Service, pipeline: Callable[..., str]) -> None:
    """The head's own end is told in the run's message."""
    # More than the container may have: Java's heap is held to a part of it, what lies beside the heap comes on top.
    script = """workflow {
 def kept = []
 45.times { kept << java.nio.ByteBuffer.allocateDirect(10485760) }
 35.times { kept << new byte[10485760] }
 sleep 60000
}"""
    run_id = service.submit(pipeline(script))
    info = service.ended(run_id, 120)
    assert info["status"] == "failed"
    assert "memory" in info["message"], info
    assert any("OOMKilled" in data["message"] for data in errors_of(service, run_id)), info


def test_an_image_that_cannot_be_pulled_is_told(service: Service, pipeline: Callable[..., str]) -> None:
    """As soon as Kubernetes knows, and with what to check."""
    script = "process PULL { container 'localhost:9/no/such:1'\n script: \"true\" }\nworkflow { PULL() }"
    run_id = service.submit(pipeline(script))
    assert service.ended(run_id, 120)["status"] == "failed"
    [told] = [data for data in errors_of(service, run_id) if "cannot get its image" in data["message"]]
    assert told["task"] == "PULL"
    assert "localhost:9/no/such:1" in told["message"]
    assert "registry" in told["hint"]


def test_a_task_that_fits_no_node_is_told_and_can_be_cancelled(
    service: Service, node: Node, pipeline: Callable[..., str]
) -> None:
    """It waits, since a node may come; people know why, and may end it."""
    run_id = service.submit(pipeline('process BIG { cpus 64\n script: "true" }\nworkflow { BIG() }'))
    service.wait(lambda: any("waits for a node" in data["message"] for data in errors_of(service, run_id)), 60)
    assert service.run(run_id)["status"] == "running"
    service.client.call("DELETE", "/cancel", params={"run_id": run_id})
    assert service.ended(run_id, 120)["status"] == "cancelled"
    assert pods_of(node, run_id) == []
    assert job_of(node, run_id) is None


def test_a_job_that_is_deleted_by_hand_is_told(service: Service, node: Node, pipeline: Callable[..., str]) -> None:
    """Nobody asked the service to end it: the run has failed, with words, and nothing of it is left."""
    run_id = service.submit(pipeline(TWO_STEPS))
    wait_for_task(service, run_id, "process > SLOW")
    node.run_kubectl("-n", NAMESPACE, "delete", "job", f"nextflow-{run_id}", "--wait=false")
    info = service.ended(run_id, 180)
    assert info["status"] == "failed"
    assert "deleted from outside" in info["message"]
    assert pods_of(node, run_id) == []


def test_a_log_that_went_with_its_pod_comes_from_the_claim(
    cluster_settings: dict[str, str], tmp_path: Path, node: Node, pipeline: Callable[..., str]
) -> None:
    """The service is down when the run ends and its Job is removed: each line is there once, and nothing is left."""
    service = Service(tmp_path / "away", **cluster_settings)
    service.start()
    try:
        run_id = service.submit(pipeline(NUMBERED))
        service.wait(lambda: "line 40" in service.lines(run_id), 90)
        service.stop()
        node.run_kubectl("-n", NAMESPACE, "wait", f"job/nextflow-{run_id}", "--for=condition=Complete", "--timeout=90s")
        node.run_kubectl("-n", NAMESPACE, "delete", "job", f"nextflow-{run_id}", "--cascade=foreground")
        service.start()
        info = service.ended(run_id, 120)
        assert "deleted from outside" in info["message"]
        lines = [line for line in service.lines(run_id) if line.startswith("line ")]
        assert lines == [f"line {number}" for number in range(1, LINES + 1)]
        [told] = errors_of(service, run_id)
        assert "the claim has the rest" in told["message"]
        assert pods_of(node, run_id) == []
    finally:
        service.kill()


def test_the_deadline_ends_a_run(
    cluster_settings: dict[str, str], tmp_path: Path, node: Node, pipeline: Callable[..., str]
) -> None:
    """Kubernetes stops it, the message names the setting, and no task is left."""
    service = Service(tmp_path / "deadline", **cluster_settings, JOB_ACTIVE_DEADLINE_SECONDS="60")
    service.start()
    try:
        # A minute is the shortest deadline that is taken; most of it goes by in the pipeline's own step.
        run_id = service.submit(pipeline(TWO_STEPS))
        info = service.ended(run_id, 200)
        assert info["status"] == "failed"
        assert "JOB_ACTIVE_DEADLINE_SECONDS" in info["message"]
        assert [pod for pod in pods_of(node, run_id) if pod["status"]["phase"] == "Running"] == []
    finally:
        service.kill()


@pytest.mark.timeout(1200)
def test_twenty_cancels_at_random_moments_leave_nothing(
    service: Service, node: Node, pipeline: Callable[..., str]
) -> None:
    """Before the Job is made, while it is, in Java's start, among tasks: cancelled each time, and nothing stays."""
    chance = random.Random(20)
    where = pipeline(TWO_STEPS)
    for _ in range(20):
        run_id = service.submit(where)
        time.sleep(chance.choice([0.0, 0.02, 0.1, 0.5, 1.5, chance.uniform(2, 14)]))
        service.client.call("DELETE", "/cancel", params={"run_id": run_id})
        assert service.ended(run_id, 60)["status"] == "cancelled"
        assert pods_of(node, run_id) == [], run_id
        assert job_of(node, run_id) is None, run_id
        assert [event["type"] for event in service.events(run_id)].count("complete") == 1
    jobs = json.loads(node.run_kubectl("-n", NAMESPACE, "get", "jobs", "-o", "json"))["items"]
    assert [job["metadata"]["name"] for job in jobs if job["status"].get("active")] == []


def test_five_sockets_see_the_same_run(service: Service, pipeline: Callable[..., str]) -> None:
    """Each viewer gets every event once and in order, from a run in a pod as from any other."""
    run_id = service.submit(pipeline(NUMBERED))
    with ThreadPoolExecutor(5) as pool:
        seen = list(pool.map(lambda _: service.nfctl("logs", run_id, "--follow").stdout.splitlines(), range(5)))
    wanted = [f"line {number}" for number in range(1, LINES + 1)]
    for lines in seen:
        assert [line for line in lines if line.startswith("line ")] == wanted
