"""Executes runs as Jobs of a Kubernetes cluster, one at a time in its namespace."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import CannotStart, ClusterAway, ClusterRefused
from shared.runs import Run, job_name
from shared.settings import Settings
from worker.cluster import Chunk, Outcome
from worker.kube import manifest
from worker.kube.api import Api, connect
from worker.kube.carriage import Carriage
from worker.kube.removal import only_prints

_CHECK_SECONDS = 1.5
_CHECK_AGAIN_SECONDS = 15.0
_AT_WORK = "status.phase!=Succeeded,status.phase!=Failed"


class KubernetesCluster:
    """Runs Nextflow in a pod of a Job, with a pod a task."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api: Api | None = None
        self._cancelled: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}
        self._checked_at = float("-inf")

    def follow(self, run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        """See `Cluster.follow`; `place` has the cursor of each container's log, and the keys of told notices."""
        carriage = Carriage(self._connected(), self._settings, run, place, lambda: run.run_id in self._cancelled)
        yield from carriage.chunks()
        if carriage.outcome is not None:
            self._outcomes[run.run_id] = carriage.outcome

    def outcome(self, run: Run) -> Outcome:
        """See `Cluster.outcome`."""
        return self._outcomes[run.run_id]

    def cancel(self, run: Run) -> None:
        """Leave word for whoever follows the run here, who looks five times a second."""
        self._cancelled.add(run.run_id)

    def what_works(self) -> Mapping[str, str]:
        """The Jobs whose pods have not ended, and where there is only a task's pod, that."""
        namespace = self._settings.nextflow_namespace
        query = {"labelSelector": manifest.RUN_NAME_LABEL, "fieldSelector": _AT_WORK}
        try:
            found = self._connected().get(f"/api/v1/namespaces/{namespace}/pods", query, seconds=_CHECK_SECONDS)
        except (ClusterAway, ClusterRefused) as error:
            raise CannotStart(str(error)) from error
        working: dict[str, str] = {}
        pods = (pod["metadata"] for pod in found.get("items") or () if not only_prints(pod))
        for labels, name in ((pod["labels"], pod["name"]) for pod in pods):
            run_id = labels[manifest.RUN_NAME_LABEL]
            if manifest.RUN_LABEL in labels:
                working[run_id] = f"Job {job_name(run_id)} in {namespace}"
            else:
                working.setdefault(run_id, f"Pod {name} in {namespace}")
        return working

    def check(self) -> str:
        """Whether the API server answers and lets the worker see the Jobs of the namespace."""
        namespace = self._settings.nextflow_namespace
        api = self._connected()
        # Whoever asks for the service's health often should not cost the API server as much.
        if time.monotonic() - self._checked_at > _CHECK_AGAIN_SECONDS:
            path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
            try:
                api.get(path, {"limit": "1"}, seconds=_CHECK_SECONDS)
            except ClusterAway as error:
                raise CannotStart(str(error)) from error
            except ClusterRefused as error:
                raise CannotStart(f"Kubernetes refuses to show the Jobs of namespace {namespace}: {error}") from error
            self._checked_at = time.monotonic()
        return f"kubernetes, namespace {namespace} at {api.host}"

    def _connected(self) -> Api:
        if self._api is None:
            self._api = connect(self._settings)
        return self._api
