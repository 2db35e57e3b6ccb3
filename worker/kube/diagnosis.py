"""What Kubernetes knows of a pod's trouble, in words: pure functions from its objects to notices."""

import re
from collections.abc import Iterator
from typing import Any

from worker.cluster import Notice
from worker.kube.api import Json
from worker.kube.manifest import CONTAINER

_SOURCE = "kubernetes"
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CREATE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}
_PULL_HINT = "Check the image's name and tag, that its registry can be reached, and its pull secret."
_MEMORY_HINT = "Give the process more memory, for example `process.memory = '4 GB'`, then resume."
_HEAD_MEMORY_HINT = "Give Nextflow itself more memory by the setting NEXTFLOW_MEMORY, then resume."
_ROOM_HINT = "Ask for less CPU or memory, wait until other pods end, or add a node."
_CLAIM_HINT = "Check the claim that WORK_PVC names: it must exist in the namespace and be bound."
_EVICTED_HINT = "The node was short of something or went away. Resume the run to go on."
_PRINTED = re.compile(r"(\d+) lines printed")
_EVENTS = {
    "FailedCreate": "Check the namespace's quota, its Pod Security level and the service account.",
    "FailedMount": _CLAIM_HINT,
    "FailedAttachVolume": _CLAIM_HINT,
    "FailedCreatePodSandBox": "The node cannot start pods just now; its administrator can tell why.",
}


def of_pod(pod: Json) -> Iterator[Notice]:
    """Every trouble that a pod's status tells now; the same trouble always bears the same key."""
    status = pod.get("status", {})
    yield from _unscheduled(pod, status)
    yield from _disturbed(pod, status)
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        yield from _of_container(pod, container)


def of_event(event: Json) -> Iterator[Notice]:
    """The trouble that an Event of a run's object tells, if no status tells it."""
    about, reason = event.get("involvedObject", {}), event.get("reason", "")
    # A kubelet that is quicker than its own caches fails once and succeeds a moment later.
    told = event.get("count") or 1
    if event.get("type") == "Warning" and reason in _EVENTS and (told > 1 or about.get("kind") == "Job"):
        name = f"{about.get('kind')} {about.get('name')}"
        message = f"{reason} of {name}: {event.get('message', '').strip()}"
        yield Notice(f"{name}/{reason}", "error", message, _SOURCE, None, _EVENTS[reason])


def head_reason(pod: Json | None, job: Json | None, condition: Json | None) -> str | None:
    """Why a head pod ended, where its exit code does not say it; None when nothing but that code is known."""
    if condition is not None and condition.get("reason") == "DeadlineExceeded":
        seconds = (job or {}).get("spec", {}).get("activeDeadlineSeconds")
        return f"The run was stopped at its deadline of {seconds} s (JOB_ACTIVE_DEADLINE_SECONDS). Resume it to go on."
    if pod is None:
        return None
    state = ended(pod, CONTAINER)
    if state is not None and state.get("reason") == "OOMKilled":
        return f"Nextflow itself ran out of memory and was killed (OOMKilled). {_HEAD_MEMORY_HINT}"
    disturbed = next(_disturbed(pod, pod.get("status", {})), None)
    if disturbed is not None:
        return f"{disturbed.message} {disturbed.hint}"
    if state is not None and state.get("reason") in ("StartError", "ContainerCannotRun"):
        return f"Nextflow's container could not start: {state.get('message', '').strip()}"
    return None


def has_begun(container: Json) -> bool:
    """Whether a container's status says that it runs or has run."""
    state = container.get("state", {})
    return "running" in state or "terminated" in state


def begun(pod: Json, container: str) -> bool:
    """Whether that container of a pod runs or has run."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any(status["name"] == container and has_begun(status) for status in statuses)


def ended(pod: Json, container: str) -> dict[str, Any] | None:
    """The terminated state of a container: exitCode, reason, finishedAt; None while it has not ended."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status["name"] == container:
            found: dict[str, Any] | None = status.get("state", {}).get("terminated")
            return found
    return None


def printed(pod: Json, container: str) -> int | None:
    """How many lines a container printed, as it left word when it ended; None when it did not."""
    found = _PRINTED.fullmatch((ended(pod, container) or {}).get("message", "").strip())
    return int(found[1]) if found else None


def task_of(pod: Json) -> str | None:
    """The Nextflow task that a pod executes, as its label has it; None for a head pod."""
    name: str | None = (pod["metadata"].get("labels") or {}).get("nextflow.io/taskName")
    return name


def _who(pod: Json) -> str:
    task = task_of(pod)
    return f"Task {task}" if task else "Nextflow's own pod"


def _unscheduled(pod: Json, status: Json) -> Iterator[Notice]:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            why = condition.get("message", "")
            hint = _CLAIM_HINT if "persistentvolumeclaim" in why else _ROOM_HINT
            # One notice for all pods that wait for the same: they may be hundreds.
            key = f"unschedulable/{task_of(pod) is None}/{why}"
            yield Notice(key, "warning", f"{_who(pod)} waits for a node: {why}", _SOURCE, task_of(pod), hint)


def _disturbed(pod: Json, status: Json) -> Iterator[Notice]:
    reason, why = status.get("reason"), status.get("message", "")
    if not reason:
        for condition in status.get("conditions") or ():
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
                reason, why = condition.get("reason"), condition.get("message", "")
    if reason and reason != "DeadlineExceeded":
        message = f"{_who(pod)} was ended by the cluster ({reason}): {why}".rstrip(": ")
        key = f"{pod['metadata']['name']}/disturbed"
        yield Notice(key, "error", message, _SOURCE, task_of(pod), _EVICTED_HINT)


def _of_container(pod: Json, container: Json) -> Iterator[Notice]:
    state = container.get("state", {})
    waiting, terminated = state.get("waiting", {}), state.get("terminated", {})
    name, task = f"{pod['metadata']['name']}/{container['name']}", task_of(pod)
    why = f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
    if waiting.get("reason") in _PULL:
        message = f"{_who(pod)} cannot get its image {container.get('image')} ({why})"
        yield Notice(f"{name}/image", "error", message, _SOURCE, task, _PULL_HINT)
    elif waiting.get("reason") in _CREATE:
        yield Notice(f"{name}/create", "error", f"{_who(pod)} cannot start ({why})", _SOURCE, task, None)
    if terminated.get("reason") == "OOMKilled":
        message = f"{_who(pod)} used more memory than it may and was killed (OOMKilled)."
        hint = _MEMORY_HINT if task else _HEAD_MEMORY_HINT
        yield Notice(f"{name}/oom", "error", message, _SOURCE, task, hint)
    elif terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        message = f"{_who(pod)} could not start: {terminated.get('message', '').strip()}"
        yield Notice(f"{name}/create", "error", message, _SOURCE, task, None)
