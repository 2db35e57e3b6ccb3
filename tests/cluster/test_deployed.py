"""The service inside the cluster, deployed by its manifests and reached through its Service."""

import json
from typing import Any

import httpx
import pytest
from cluster.deployment import RUNS, SERVICE, Deployed
from cluster.node import Node
from service_process import FINAL, Service

pytestmark = [pytest.mark.cluster, pytest.mark.system, pytest.mark.timeout(600)]

# What `kubectl auth can-i --list` shows for any account that is logged in.
ANYBODY = {"selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io"}
ANYBODY |= {"selfsubjectrulesreviews.authorization.k8s.io"}
WORKER = {
    "jobs.batch": {"create", "get", "list", "watch", "delete", "patch"},
    "pods": {"list", "watch", "delete"},
    "pods/log": {"get"},
    "secrets": {"create"},
    "leases.coordination.k8s.io": {"create", "get", "update"},
    "events": {"list", "watch"},
}
NEXTFLOW = {
    "jobs.batch": {"create", "get", "delete"},
    "jobs.batch/status": {"get"},
    "pods": {"create", "get", "list", "delete"},
    "pods/status": {"get"},
    "pods/log": {"get"},
}


def ended(deployed: Deployed, run_id: str) -> dict[str, Any]:
    """`RunInfo` at the run's end."""
    info: dict[str, Any] = {}

    def final() -> bool:
        info.update(deployed.client.call("GET", f"/runs/{run_id}"))
        return info["status"] in FINAL

    Service.wait(final, 240)
    return info


def rights(node: Node, account: str, namespace: str) -> dict[str, set[str]]:
    """What an account may do in a namespace, by resource, as the API server itself lists it."""
    listed = node.run_kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{account}", "-n", namespace)
    found: dict[str, set[str]] = {}
    for line in listed.splitlines()[1:]:
        resource, _, rest = line.partition(" ")
        if resource and not resource.startswith("["):
            verbs = rest[rest.rindex("[") + 1 : rest.rindex("]")].split()
            found.setdefault(resource, set()).update(verbs)
    return {resource: verbs for resource, verbs in found.items() if resource not in ANYBODY}


@pytest.mark.parametrize("pipeline", ["simple-pipeline", "parallel-demo", "rnaseq-test"])
def test_the_examples_succeed(deployed: Deployed, pipeline: str) -> None:
    """Each example pipeline, by the name that the catalog gives it, with its results on the page."""
    answer = deployed.client.submit({"pipeline": pipeline, "when_busy": "queue", "parameters": {"fast": True}})
    info = ended(deployed, answer["run_id"])
    assert info["status"] == "succeeded", info
    artifacts = deployed.client.call("GET", f"/runs/{answer['run_id']}/artifacts")["artifacts"]
    assert {"report", "output"} == {artifact["kind"] for artifact in artifacts}
    tasks = deployed.client.call("GET", f"/runs/{answer['run_id']}/tasks")["tasks"]
    assert {task["status"] for task in tasks} == {"COMPLETED"}


def test_health_tells_the_runner(deployed: Deployed) -> None:
    """All parts answer, and the runner names its namespace."""
    # A worker that has just started listens a moment later than its pod is there.
    Service.wait(lambda: httpx.get(f"{deployed.url}/health", timeout=10).status_code == 200, 60)
    answer = httpx.get(f"{deployed.url}/health", timeout=10)
    assert RUNS in answer.json()["checks"]["runner"]["detail"]


def test_strangers_are_refused(deployed: Deployed) -> None:
    """Neither the API nor Flower answers without its secret."""
    assert httpx.get(f"{deployed.url}/api/v1/pipeline/status", timeout=10).status_code == 401
    assert httpx.get(f"{deployed.flower}/", timeout=10).status_code == 401
    user, _, password = deployed.secrets["FLOWER_BASIC_AUTH"].partition(":")
    assert httpx.get(f"{deployed.flower}/", timeout=10, auth=(user, password)).status_code == 200


def test_a_new_worker_takes_over(deployed: Deployed, node: Node) -> None:
    """A rolling restart of the worker in mid-run: the Job goes on, no line is lost or doubled, one `complete`."""
    answer = deployed.client.submit(
        {"pipeline": "parallel-demo", "when_busy": "queue", "parameters": {"fast": True}, "triggered_by": "a restart"}
    )
    run_id = answer["run_id"]
    Service.wait(lambda: "Submitted process" in deployed.client.text(f"/runs/{run_id}/logs"), 90)
    node.run_kubectl("-n", SERVICE, "rollout", "restart", "deployment", "worker")
    node.run_kubectl("-n", SERVICE, "rollout", "status", "deployment", "worker", "--timeout=120s")
    assert ended(deployed, run_id)["status"] == "succeeded"
    shown = node.run_kubectl("-n", RUNS, "logs", f"job/nextflow-{run_id}").splitlines()
    told = deployed.client.text(f"/runs/{run_id}/logs").splitlines()
    assert told == [line for line in shown if "\t" not in line]
    events = deployed.client.call("GET", f"/runs/{run_id}/events", params={"since": 0, "limit": 500})["events"]
    assert [event["type"] for event in events].count("complete") == 1
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))


def test_the_worker_may_do_what_it_needs_and_no_more(node: Node, deployed: Deployed) -> None:
    """Listed by the API server itself; in its own namespace it may do nothing at all."""
    assert deployed.url
    assert rights(node, f"{SERVICE}:worker", RUNS) == WORKER
    assert rights(node, f"{SERVICE}:worker", SERVICE) == {}
    assert rights(node, f"{SERVICE}:reconciler", RUNS) == {}


def test_nextflow_may_make_pods_and_no_more(node: Node, deployed: Deployed) -> None:
    """It cannot read a Secret, and knows nothing of the service's namespace."""
    assert deployed.url
    assert rights(node, f"{RUNS}:nextflow", RUNS) == NEXTFLOW
    assert rights(node, f"{RUNS}:nextflow", SERVICE) == {}


def test_a_task_has_no_token(node: Node, deployed: Deployed) -> None:
    """What a pipeline runs cannot speak to the API server; Nextflow's own pod can."""
    answer = deployed.client.submit({"pipeline": "hello", "when_busy": "queue", "parameters": {"fast": True}})
    seen: dict[str, bool] = {}

    def look() -> bool:
        selector = f"nextflow.io/runName={answer['run_id']}"
        pods = json.loads(node.run_kubectl("-n", RUNS, "get", "pods", "-l", selector, "-o", "json"))["items"]
        for pod in pods:
            names = [volume["name"] for volume in pod["spec"]["volumes"]]
            is_head = "nextflow-controller/run-id" in pod["metadata"]["labels"]
            seen["head" if is_head else "task"] = any(name.startswith("kube-api-access") for name in names)
        return len(seen) == 2

    Service.wait(look, 90)
    assert seen == {"head": True, "task": False}
    assert ended(deployed, answer["run_id"])["status"] == "succeeded"
