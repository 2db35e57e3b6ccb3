"""What Kubernetes knows of a pod's trouble, told in words: from its objects to notices."""

from typing import Any

import pytest

from worker.kube import diagnosis


def pod(status: dict[str, Any], task: str | None = "ALIGN_1") -> dict[str, Any]:
    labels = {} if task is None else {"nextflow.io/taskName": task}
    return {"metadata": {"name": "nf-1", "labels": labels}, "status": status}


def waiting(reason: str, message: str = "why") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "nextflow", "image": "lab/tool:1", "state": state}]}


def terminated(reason: str, code: int = 137) -> dict[str, Any]:
    state = {"terminated": {"reason": reason, "exitCode": code, "message": "no such program"}}
    return {"containerStatuses": [{"name": "nextflow", "image": "lab/tool:1", "state": state}]}


UNSCHEDULABLE = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no cpu"}
    ]
}
TROUBLE = [
    (waiting("ErrImagePull"), "error", "cannot get its image lab/tool:1"),
    (waiting("ImagePullBackOff"), "error", "cannot get its image lab/tool:1"),
    (waiting("CreateContainerConfigError"), "error", "cannot start"),
    (terminated("OOMKilled"), "error", "OOMKilled"),
    (terminated("StartError", 128), "error", "no such program"),
    (UNSCHEDULABLE, "warning", "0/3 nodes: no cpu"),
    ({"reason": "Evicted", "message": "The node was low on memory."}, "error", "The node was low on memory."),
    (
        {
            "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "m"}
            ]
        },
        "error",
        "PreemptionByScheduler",
    ),
]


@pytest.mark.parametrize(("status", "level", "words"), TROUBLE)
@pytest.mark.parametrize("task", ["ALIGN_1", None])
def test_trouble_is_told_in_words(status: dict[str, Any], level: str, words: str, task: str | None) -> None:
    """Each trouble is one notice, which names the task, or Nextflow's own pod."""
    [notice] = diagnosis.of_pod(pod(status, task))
    assert (notice.level, notice.source, notice.task) == (level, "kubernetes", task)
    assert words in notice.message
    assert ("Task ALIGN_1" if task else "Nextflow's own pod") in notice.message


def test_the_same_trouble_has_the_same_key() -> None:
    """A pull that fails in two words is one trouble; pods that wait for the same are one too."""
    first, second = (next(diagnosis.of_pod(pod(waiting(reason)))) for reason in ("ErrImagePull", "ImagePullBackOff"))
    assert first.key == second.key
    other = pod(UNSCHEDULABLE, "SORT_2") | {"metadata": {"name": "nf-2", "labels": {"nextflow.io/taskName": "SORT_2"}}}
    assert next(diagnosis.of_pod(pod(UNSCHEDULABLE))).key == next(diagnosis.of_pod(other)).key


@pytest.mark.parametrize(
    "status",
    [{}, {"phase": "Running"}, waiting("ContainerCreating"), terminated("Completed", 0), terminated("Error", 1)],
)
def test_what_is_no_trouble_is_not_told(status: dict[str, Any]) -> None:
    """A task's own exit code is Nextflow's to tell."""
    assert list(diagnosis.of_pod(pod(status))) == []


@pytest.mark.parametrize(
    ("kind", "reason", "count", "told"),
    [
        ("Job", "FailedCreate", 1, True),
        ("Pod", "FailedMount", 1, False),
        ("Pod", "FailedMount", 2, True),
        ("Pod", "Unhealthy", 5, False),
    ],
)
def test_events_that_no_status_tells(kind: str, reason: str, count: int, told: bool) -> None:
    """A pod's trouble counts when it comes again, as a kubelet often fails once."""
    about = {"kind": kind, "name": "x"}
    event = {"type": "Warning", "reason": reason, "count": count, "message": "m", "involvedObject": about}
    assert bool(list(diagnosis.of_event(event))) is told
    assert list(diagnosis.of_event(event | {"type": "Normal"})) == []


def test_why_a_head_ended() -> None:
    """Memory, a deadline, an eviction and a program that is missing have words; a plain exit code has none."""
    job = {"spec": {"activeDeadlineSeconds": 60}}
    deadline = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    assert "JOB_ACTIVE_DEADLINE_SECONDS" in (diagnosis.head_reason(None, job, deadline) or "")
    assert "NEXTFLOW_MEMORY" in (diagnosis.head_reason(pod(terminated("OOMKilled"), None), job, None) or "")
    assert "Evicted" in (diagnosis.head_reason(pod({"reason": "Evicted", "message": "m"}, None), job, None) or "")
    assert "no such program" in (diagnosis.head_reason(pod(terminated("StartError"), None), job, None) or "")
    assert diagnosis.head_reason(pod(terminated("Error", 1), None), job, None) is None
    assert diagnosis.head_reason(None, None, None) is None
