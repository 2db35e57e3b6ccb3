"""The faults of a cluster: of its API server, its node, and whoever deletes what is not theirs."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from cluster.configuration import API_SERVER, KUBELET
from faults.cluster_stage import ClusterStage
from faults.proxy import Proxy
from faults.trial import Fault, Scene
from faults.worker import worker_away, worker_frozen_beside_another, worker_killed

_AWAY_SECONDS = 30
_CUTS = 50
_UNREAD = 50


def _stage(scene: Scene) -> ClusterStage:
    assert isinstance(scene.stage, ClusterStage)
    return scene.stage


def _restarted(part: str) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        _stage(scene).node.restart(part)

    return inject


def _api_server(broken: Callable[[Proxy], AbstractContextManager[None]]) -> Callable[[Scene], None]:
    def inject(scene: Scene) -> None:
        with broken(_stage(scene).proxy):
            time.sleep(_AWAY_SECONDS)

    return inject


def _log_cut(scene: Scene) -> None:
    """Broken off, or ended in order, where it happens to be."""
    proxy = _stage(scene).proxy
    for _ in range(_CUTS):
        scene.service.wait(scene.rng.choice([lambda: proxy.cut(logs_only=True), proxy.end_logs]), 60)
        time.sleep(scene.rng.uniform(0, 0.3))


def _head_deleted(scene: Scene) -> None:
    head = _wait_for_head(scene)
    _stage(scene).kubectl("delete", "pod", head, "--wait=false")


def _head_out_of_memory(scene: Scene) -> None:
    eat = _stage(scene).storage / "eat"
    eat.touch()
    scene.service.wait(lambda: _head_has_failed(scene), 120)
    eat.unlink()


def _job_deleted(scene: Scene) -> None:
    _wait_for_head(scene)
    _stage(scene).kubectl("delete", "job", f"nextflow-{scene.run_id}", "--wait=false")


def _worker_and_job_gone(scene: Scene) -> None:
    """While there is no worker, the run says more and more, and then its Job is deleted with all that it said."""
    _wait_for_head(scene)
    with worker_away(scene):
        printed = len(_stage(scene).printed(scene.run_id))
        scene.service.wait(lambda: len(_stage(scene).printed(scene.run_id)) > printed + _UNREAD, 120)
        _stage(scene).kubectl("delete", "job", f"nextflow-{scene.run_id}", "--cascade=foreground", "--timeout=120s")


def _log_rotated(scene: Scene) -> None:
    with _stage(scene).node.kubelet_with(containerLogMaxSize="10Ki"):
        scene.service.ended(scene.run_id, 180)
    files = _stage(scene).witness.files_of(scene.run_id)
    scene.verdict.check(files > 3, f"the log was turned over {files - 1} times")


def _evicted(scene: Scene) -> None:
    """The node runs out of process ids, as far as its kubelet can tell, and evicts whoever has the most."""
    _wait_for_head(scene)
    with _stage(scene).node.kubelet_with(evictionHard={"pid.available": "1G"}):
        scene.service.wait(lambda: _head_has_failed(scene), 150)


def _head_has_failed(scene: Scene) -> bool:
    head = _stage(scene).head_of(scene.run_id)
    return head is None or head["status"].get("phase") == "Failed"


def _wait_for_head(scene: Scene) -> str:
    """The name of the run's head pod, once it is there."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(_stage(scene).head_of(scene.run_id) or {})
        return bool(found)

    scene.service.wait(there, 60)
    return str(found["metadata"]["name"])


# A task works beside the numbered lines.
_TASK = {"hold": 5}
_BESIDE: dict[str, Any] = {"latest": 25.0, "more": _TASK}
# It ends by the fault, and its task must be taken along. With so many children the kubelet takes it first.
_ENDED: dict[str, Any] = {"latest": 25.0, "more": {"hold": 300, "children": 30}}

FAULTS = [
    # Nextflow itself gives up on a task when it cannot ask for it, so it has none here.
    Fault("API server restarted", _restarted(API_SERVER), latest=25.0, alone=True),
    Fault("API server answers 500 for 30 s", _api_server(lambda proxy: proxy.answering(500)), **_BESIDE),
    Fault("API server answers 429 for 30 s", _api_server(lambda proxy: proxy.answering(429)), **_BESIDE),
    Fault("API server silent for 30 s", _api_server(lambda proxy: proxy.silent()), **_BESIDE),
    # So many lines that some are left however long the cuts take.
    Fault("log stream cut 50 times", _log_cut, lines=8000, **_BESIDE),
    Fault("kubelet restarted", _restarted(KUBELET), alone=True, **_BESIDE),
    Fault("worker killed, of a run on a cluster", worker_killed(slice(0, 2)), **_BESIDE),
    Fault("worker frozen beside another, of a run on a cluster", worker_frozen_beside_another, **_BESIDE),
    Fault(
        "worker away, and the Job deleted meanwhile",
        _worker_and_job_gone,
        ends_with="deleted from outside",
        end_unseen=True,
        **_ENDED,
    ),
    Fault("head pod deleted", _head_deleted, ends_with="deleted from outside", **_ENDED),
    Fault("head out of memory", _head_out_of_memory, ends_with="OOMKilled", **_ENDED),
    Fault("Job deleted by hand", _job_deleted, ends_with="deleted from outside", **_ENDED),
    # Before the head prints: a kubelet that starts anew cuts the stream, and what it turns over just then is gone.
    Fault(
        "logs rotated at 10 KiB",
        _log_rotated,
        lines=600,
        width=200,
        kubelet_loses_lines=True,
        latest=0.0,
        before_log=True,
        to_the_end=True,
        alone=True,
    ),
    Fault("node under pressure evicts the head", _evicted, ends_with="Evicted", alone=True, **_ENDED),
]
