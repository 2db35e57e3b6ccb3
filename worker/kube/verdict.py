"""How a run's execution ended, from what the cluster shows at its end: a pure function."""

from collections.abc import Iterable

from shared import times
from worker.cluster import Outcome
from worker.kube import diagnosis
from worker.kube.api import Json
from worker.kube.manifest import CONTAINER
from worker.kube.slot import finished


def verdict(heads: Iterable[Json], job: Json | None, *, cancelled: bool, started: bool) -> Outcome:
    """From the head pods that were seen, as they were last, and the Job, if it is still there."""
    head = max(heads, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)
    state = diagnosis.ended(head, CONTAINER) if head else None
    condition = finished(job) if job else None
    reason = diagnosis.head_reason(head, job, condition)
    deleted = job is None or (head is not None and "deletionTimestamp" in head["metadata"])
    if reason is None and deleted and not cancelled:
        reason = "The run's Job or its pod was deleted from outside. Resume the run to go on."
    if state is not None:
        code = int(state["exitCode"])
        at = times.from_text(state["finishedAt"]) if state.get("finishedAt") else None
        return Outcome(code, cancelled=cancelled, killed=cancelled and code == 137, reason=reason, finished_at=at)
    if job is not None and condition is not None and condition["type"] == "Complete":
        # Its pod is gone, with its node or by hand; the Job counts only what has ended with 0.
        ended_at = job["status"].get("completionTime")
        return Outcome(0, finished_at=times.from_text(ended_at) if ended_at else None)
    if cancelled:
        words = "Cancelled." if started else "Cancelled before Nextflow started."
        return Outcome(None, cancelled=True, reason=words)
    if reason is None and condition is not None:
        reason = f"The run's Job failed ({condition.get('reason')}): {condition.get('message', '')}"
    return Outcome(None, reason=reason or "Nobody saw how Nextflow ended. Resume the run to go on.")
