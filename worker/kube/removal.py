"""Removes what belongs to a run from the cluster: its Job, its pods, and what Nextflow left."""

import time
from collections.abc import Callable, Sequence

from shared.errors import ClusterRefused
from shared.runs import Run
from worker.cluster import Notice
from worker.kube import manifest
from worker.kube.api import Api, Json
from worker.kube.patience import Patience

_PAUSE_SECONDS = 0.5
_STUCK_SECONDS = 60.0
_PRINTS_SECONDS = 15.0
_GRACE_SECONDS = 5


class Removal:
    """For one run. Every deletion names the uid, and what is gone already is fine. All may raise Stopped."""

    def __init__(self, api: Api, namespace: str, run: Run, patience: Patience, tell: Callable[[Notice], None]) -> None:
        self._api = api
        self._run = run
        self._patience = patience
        self._tell = tell
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._asked: set[str] = set()

    def job(self, uid: str, propagation: str) -> None:
        """Have the run's Job of that uid go, and its pods as `propagation` says; again: no change."""
        if uid not in self._asked:
            self._asked.add(uid)
            self._delete(f"{self._jobs}/{self._run.job_name}", uid, {"propagationPolicy": propagation})

    def pod(self, pod: Json) -> None:
        """Have a pod go, in its own time."""
        uid = pod["metadata"]["uid"]
        if uid not in self._asked:
            self._asked.add(uid)
            self._delete(f"{self._pods}/{pod['metadata']['name']}", uid, {})

    def all_that_is_left(self, *, with_head: bool) -> None:
        """Remove what Nextflow left behind, and wait until it is gone; `with_head` also its own pod and Job.

        A head that somebody else has deleted is waited for too. What only prints the log harms nobody: it is not waited
        for long.
        """
        began = time.monotonic()
        while True:
            jobs = self._listed(self._jobs, manifest.RUN_NAME_LABEL, self._run.run_id)
            pods = self._listed(self._pods, manifest.RUN_NAME_LABEL, self._run.run_id)
            pods = [pod for pod in pods if with_head or not is_head(pod) or "deletionTimestamp" in pod["metadata"]]
            for base, items in ((self._jobs, jobs), (self._pods, pods)):
                for item in items:
                    self._quickly(base, item)
            waited = time.monotonic() - began
            gone = not (jobs or pods) or (waited > _PRINTS_SECONDS and all(map(only_prints, (*jobs, *pods))))
            if gone and not (with_head and self.own_job() is not None):
                return
            if waited > _STUCK_SECONDS:
                self.tell_stuck(pods)
            self._patience.pause(_PAUSE_SECONDS)

    def tell_stuck(self, pods: Sequence[Json]) -> None:
        """Say that these pods should have gone by now."""
        names = ", ".join(pod["metadata"]["name"] for pod in pods[:5])
        message = f"The run is over, but its pods do not go: {names}. Their node may be lost."
        self._tell(Notice("reap", "warning", message, "kubernetes"))

    def tasks_of_session(self) -> None:
        """Before a run goes on where another stopped: have no task of that one write there any more."""
        session = f"uuid-{self._run.session_id}"
        while True:
            living = [pod for pod in self._listed(self._pods, manifest.SESSION_LABEL, session) if not has_ended(pod)]
            if not living:
                return
            for pod in living:
                self.pod(pod)
            message = f"Pods of an earlier run of this session still end: {living[0]['metadata']['name']} …"
            self._tell(Notice("session", "warning", message, "kubernetes"))
            self._patience.pause(_PAUSE_SECONDS)

    def own_job(self) -> Json | None:
        """The run's Job as it is, if there is one."""
        try:
            job = self._patience.insist(lambda: self._api.get(f"{self._jobs}/{self._run.job_name}"))
        except ClusterRefused as error:
            if error.status != 404:
                raise
            return None
        return job if is_own(job, self._run) else None

    def _listed(self, path: str, label: str, value: str) -> Sequence[Json]:
        found = self._patience.insist(lambda: self._api.get(path, {"labelSelector": f"{label}={value}"}))
        return found.get("items") or ()

    def _quickly(self, base: str, item: Json) -> None:
        metadata = item["metadata"]
        # Asked for once more even if it was asked to go in its own time.
        if (mark := f"quickly {metadata['uid']}") not in self._asked:
            self._asked.add(mark)
            options = {"propagationPolicy": "Background", "gracePeriodSeconds": _GRACE_SECONDS}
            self._delete(f"{base}/{metadata['name']}", metadata["uid"], options)

    def _delete(self, path: str, uid: str, options: Json) -> None:
        """Delete this object and no other of its name."""
        try:
            self._patience.insist(lambda: self._api.delete(path, {"preconditions": {"uid": uid}, **options}))
        except ClusterRefused as error:
            if error.status not in (404, 409):
                raise


def is_own(job: Json, run: Run) -> bool:
    """Whether a Job was made for this run."""
    return bool((job["metadata"].get("labels") or {}).get(manifest.RUN_LABEL) == run.run_id)


def is_head(pod: Json) -> bool:
    """Whether Nextflow itself works in a pod, and not a task."""
    return manifest.RUN_LABEL in (pod["metadata"].get("labels") or {})


def only_prints(item: Json) -> bool:
    """Whether a Job or pod does nothing but print what the claim has of a run's log."""
    return (item["metadata"].get("labels") or {}).get(manifest.COMPONENT_LABEL) == manifest.LOG_CONTAINER


def has_ended(pod: Json) -> bool:
    """Whether nothing works in a pod any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
