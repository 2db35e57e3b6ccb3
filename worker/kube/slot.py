"""The cluster's one slot: a Lease that names the run whose Job may work.

Redis decides which run is active; this decides what the cluster does, also when a worker acts on what was
true a minute ago. Every change is a compare-and-set by the API server. A Job is made suspended and is let
go only after the Lease, still the run's, has taken down its uid; so of two workers, however slow, at most
one Job works, and a run whose Job was once there never gets a second.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.errors import ClusterRefused
from shared.runs import job_name
from worker.kube.api import Api, Json

NAME = "nextflow-controller"
_JOB_UID = "nextflow-controller/job-uid"
_CANCELLED = "nextflow-controller/cancelled"
_FORMER = "nextflow-controller/former"
# How many runs after one a worker may wake up that slept since.
_FORMER_KEPT = 100


@dataclass(frozen=True, slots=True)
class Grant:
    """What the Lease says of the run that holds it."""

    cancelled: bool
    job_uid: str | None


class SlotTaken(Exception):
    """Another run's Job still works in this namespace."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"Run {holder} still works in this namespace.")
        self.holder = holder


class _HeldBefore(SlotTaken):
    """Another run holds the slot, and this one did before it."""


class Slot:
    """The Lease of one namespace. Every method raises ClusterAway and ClusterRefused."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"

    def claim(self, run_id: str) -> Grant:
        """Hold the slot for a run. Raises SlotTaken while the Job of another works.

        A run that held it before another did has ended, and is granted nothing: whoever asks has slept.
        """
        try:
            return _grant(self._change(run_id, lambda _: None))
        except _HeldBefore:
            return Grant(cancelled=True, job_uid=None)

    def record_job(self, run_id: str, uid: str) -> Grant:
        """Take down the run's Job, unless it is cancelled or has another. Raises SlotTaken if another run holds it."""

        def change(lease: Json) -> None:
            grant = _grant(lease)
            if not grant.cancelled and grant.job_uid is None:
                _notes(lease)[_JOB_UID] = uid

        return _grant(self._change(run_id, change, take_over=False))

    def cancel(self, run_id: str) -> Grant:
        """From now on no Job is let go for this run. Raises SlotTaken."""

        def change(lease: Json) -> None:
            _notes(lease)[_CANCELLED] = "true"

        return _grant(self._change(run_id, change))

    def _change(self, run_id: str, change: Callable[[Json], None], *, take_over: bool = True) -> Json:
        """The run's Lease after a change, which may be none."""
        while True:
            lease = self._read()
            try:
                if lease is None:
                    lease = _held_by(run_id, None)
                    change(lease)
                    return self._api.create(self._leases, lease)
                before = copy.deepcopy(lease)
                holder = lease["spec"].get("holderIdentity")
                if holder != run_id:
                    if run_id in _former(lease):
                        raise _HeldBefore(holder or "")
                    if not take_over:
                        raise SlotTaken(holder or "")
                    self._check_free(holder)
                    lease = _held_by(run_id, lease)
                change(lease)
                if lease == before:
                    return lease
                return self._api.replace(f"{self._leases}/{NAME}", lease)
            except ClusterRefused as error:
                if error.status != 409:
                    raise

    def _read(self) -> Json | None:
        try:
            return self._api.get(f"{self._leases}/{NAME}")
        except ClusterRefused as error:
            if error.status == 404 and error.reason == "NotFound":
                return None
            raise

    def _check_free(self, holder: str | None) -> None:
        if not holder:
            return
        try:
            job = self._api.get(f"{self._jobs}/{job_name(holder)}")
        except ClusterRefused as error:
            if error.status == 404:
                return
            raise
        if not finished(job):
            raise SlotTaken(holder)


def finished(job: Json) -> Json | None:
    """The condition that says that a Job has ended, if it has."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return dict(condition)
    return None


def _held_by(run_id: str, before: Json | None) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    metadata: dict[str, Any] = {"name": NAME, "annotations": {}}
    transitions = 0
    if before is not None:
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        former = [*_former(before), *filter(None, [before["spec"].get("holderIdentity")])]
        metadata["annotations"][_FORMER] = " ".join(former[-_FORMER_KEPT:])
        transitions = before["spec"].get("leaseTransitions", 0) + 1
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {"holderIdentity": run_id, "acquireTime": now, "leaseTransitions": transitions},
    }


def _former(lease: Json) -> list[str]:
    """The runs that held the slot before, the last one at the end."""
    found: str = (lease["metadata"].get("annotations") or {}).get(_FORMER, "")
    return found.split()


def _grant(lease: Json) -> Grant:
    notes = lease["metadata"].get("annotations") or {}
    return Grant(notes.get(_CANCELLED) == "true", notes.get(_JOB_UID))


def _notes(lease: Json) -> Json:
    notes: Json = lease["metadata"].setdefault("annotations", {})
    return notes
