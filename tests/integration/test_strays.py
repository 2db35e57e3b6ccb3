"""What works for no active run is found and said, and nothing is said of what does its work."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
from ends import finish
from kube_lab import Lab, eventually, new_api

from shared.broker import Broker
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store
from worker.kube import manifest
from worker.kube.cluster import KubernetesCluster
from worker.local_cluster import LocalCluster
from worker.strays import StrayWatch

MakeRun = Callable[..., Run]


class Answering(Broker):
    """A worker that answers as it is told."""

    def __init__(self) -> None:
        self.working: Mapping[str, str] | None = {}

    def ask_what_works(self, seconds: float) -> dict[str, str] | None:  # noqa: ARG002 - it answers at once
        return None if self.working is None else dict(self.working)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def watch(store: Store, answering: Answering) -> StrayWatch:
    return StrayWatch(store, answering)


@pytest.fixture
def left_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that bears the mark of a run of this data directory."""
    (settings.data_dir / "runs" / "run-lost").mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "NFCTL_RUN_ID": "run-lost"}
    )
    yield process
    process.kill()
    process.communicate()


def test_what_is_seen_twice_is_reported(watch: StrayWatch, answering: Answering, store: Store) -> None:
    """Once may be a run that has just ended."""
    answering.working = {"run-lost": "Job nextflow-run-lost in runs"}
    watch.look(1)
    assert store.strays() == []
    watch.look(1)
    assert store.strays() == ["Job nextflow-run-lost in runs, of run run-lost"]


def test_what_is_gone_is_reported_no_more(watch: StrayWatch, answering: Answering, store: Store) -> None:
    """Nobody looks for what somebody has ended by hand."""
    answering.working = {"run-lost": "1 process (pid 7)"}
    for _ in range(2):
        watch.look(1)
    answering.working = {}
    watch.look(1)
    assert store.strays() == []


def test_the_active_run_is_no_stray(watch: StrayWatch, answering: Answering, store: Store, make_run: MakeRun) -> None:
    """It becomes one when it has ended and something of it works on."""
    run_id = store.submit(make_run(), "queue").run_id
    answering.working = {run_id: "1 process (pid 7)"}
    for _ in range(3):
        watch.look(1)
    assert store.strays() == []
    finish(store, run_id, RunStatus.FAILED, message="")
    for _ in range(2):
        watch.look(1)
    assert store.strays() == [f"1 process (pid 7), of run {run_id}"]


def test_without_an_answer_nothing_changes(watch: StrayWatch, answering: Answering, store: Store) -> None:
    """A worker that is away has not ended what it supervised."""
    answering.working = {"run-lost": "1 process (pid 7)"}
    for _ in range(2):
        watch.look(1)
    answering.working = None
    watch.look(1)
    assert len(store.strays() or ()) == 1


def test_a_left_process_is_found(settings: Settings, left_process: subprocess.Popen[bytes]) -> None:
    """By its mark, wherever it is in the tree of processes."""
    cluster = LocalCluster(settings)
    wanted = {"run-lost": f"1 process (pid {left_process.pid})"}
    assert eventually(lambda: cluster.what_works() or None) == wanted


def test_another_services_run_is_no_matter(settings: Settings, left_process: subprocess.Popen[bytes]) -> None:
    """Its data directory tells whose it is."""
    (settings.data_dir / "runs" / "run-lost").rmdir()
    assert "run-lost" not in LocalCluster(settings).what_works()


def test_jobs_and_pods_at_work_are_found(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job that has not ended, and a pod of a task whose Job is gone; not what has ended."""
    cluster = KubernetesCluster(lab.settings)
    api = new_api(lab.fake)
    monkeypatch.setattr(cluster, "_api", api)
    for name in ("at-work", "ended"):
        lab.fake.start_pod(f"head-{name}", {manifest.RUN_LABEL: name, manifest.RUN_NAME_LABEL: name})
        lab.fake.start_pod(f"nf-{name}", {manifest.RUN_NAME_LABEL: name})
    for pod in ("head-ended", "nf-ended"):
        lab.fake.change("pods", pod, {"status": {"phase": "Succeeded"}})
    lab.fake.start_pod("nf-1", {manifest.RUN_NAME_LABEL: "left"})
    assert cluster.what_works() == {"at-work": "Job nextflow-at-work in lab", "left": "Pod nf-1 in lab"}
    api.close()
