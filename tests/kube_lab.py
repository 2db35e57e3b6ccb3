"""A fake Kubernetes, a run, and those who carry it there, for tests."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fake_kubernetes import FakeKubernetes, Json
from kubernetes.client.configuration import Configuration

from shared import settings as settings_module
from shared.runs import Run
from shared.settings import Settings
from worker.cluster import Chunk, Notice, Outcome, Record
from worker.kube import manifest
from worker.kube.api import Api
from worker.kube.carriage import Carriage

T = TypeVar("T")


def eventually(ask: Callable[[], T], seconds: float = 15.0) -> T:
    """The first true answer; fails when there is none for so long."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"still {answer!r} after {seconds} s")
        time.sleep(0.01)
    return answer


def new_api(fake: FakeKubernetes) -> Api:
    """A client of the fake, with connections of its own."""
    configuration = Configuration()
    configuration.host = fake.url
    return Api(configuration)


class Follow:
    """Somebody who iterates over what a run gives, in a thread, until its end or until told to leave."""

    def __init__(self, chunks: Iterator[Chunk], outcome: Callable[[], Outcome | None], cancel: threading.Event) -> None:
        self._iterate = chunks
        self._outcome = outcome
        self._cancel = cancel
        self._leaving = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self.chunks: list[Chunk] = []
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True, name="follow")
        self.thread.start()

    def _run(self) -> None:
        try:
            for chunk in self._iterate:
                self.chunks.append(chunk)
                self._going.wait(30)
                if self._leaving.is_set():
                    break
        except Exception as error:  # for the test to see
            self.error = error
        finally:
            self._iterate.close()  # type: ignore[attr-defined] # it is a generator

    def cancel(self) -> None:
        """Wish the run's end."""
        self._cancel.set()

    def pause(self) -> None:
        """Take no more chunks."""
        self._going.clear()

    def leave(self) -> None:
        """Follow no more, while the run goes on."""
        self._leaving.set()
        self._going.set()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def end(self, seconds: float = 15.0) -> Outcome:
        """How the run ended; waits for it."""
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the run has not ended"
        if self.error is not None:
            raise self.error
        outcome = self._outcome()
        assert outcome is not None
        return outcome

    def failure(self, seconds: float = 15.0) -> Exception:
        """What broke it off; waits for it."""
        self.thread.join(seconds)
        assert self.error is not None, "nothing went wrong"
        return self.error

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    @property
    def records(self) -> list[Record]:
        return [record for chunk in list(self.chunks) for record in chunk.records]

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]

    @property
    def notices(self) -> list[Notice]:
        return [notice for chunk in list(self.chunks) for notice in chunk.notices]

    @property
    def place(self) -> Mapping[str, Any]:
        return self.chunks[-1].place

    @property
    def started(self) -> bool:
        return bool(self.chunks) and self.chunks[-1].started


class Lab:
    """A fake Kubernetes and one run."""

    def __init__(self, directory: Path, run: Run) -> None:
        self.fake = FakeKubernetes()
        self.fake.start()
        pipelines = directory / "pipelines"
        (pipelines / "hello").mkdir(parents=True)
        (pipelines / "hello" / "main.nf").write_text("println 'hello'\n")
        environment = {"NEXTFLOW_NAMESPACE": "lab", "DATA_DIR": str(directory), "PIPELINES_DIR": str(pipelines)}
        self.settings: Settings = settings_module.load(environment)
        self.run = run
        self._follows: list[Follow] = []
        self._apis: list[Api] = []
        self._printed: set[str] = set()

    @property
    def job(self) -> str:
        """The name of the run's Job."""
        return self.run.job_name

    def carry(
        self,
        place: Mapping[str, Any] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        run: Run | None = None,
    ) -> Follow:
        """Begin to carry the run, as a worker of its own would."""
        cancel = threading.Event()
        api = new_api(self.fake)
        carriage = Carriage(api, self.settings, run or self.run, place or {}, lambda: cancel.is_set() or cancelled())
        follow = Follow(carriage.chunks(), lambda: carriage.outcome, cancel)
        self._apis.append(api)
        self._follows.append(follow)
        return follow

    def head(self, name: str = "head", **more: Any) -> str:
        """Wait until the Job is let go, and have its pod run."""
        job = eventually(self.job_at_work)
        self.fake.start_pod(name, self.head_labels(), owner=job, **more)
        return name

    def waiting_head(self, why: str | None = None) -> None:
        """Wait until the Job is let go, and have its pod wait for a node, or its container for that reason."""
        job = eventually(self.job_at_work)
        assert job is not None
        owner = {"kind": "Job", "name": self.job, "uid": job["metadata"]["uid"]}
        metadata = {"name": "head", "labels": self.head_labels(), "ownerReferences": [owner]}
        waiting = {"name": manifest.CONTAINER, "state": {"waiting": {"reason": why}}}
        status = {"phase": "Pending"} | ({"containerStatuses": [waiting]} if why else {})
        self.fake.add("pods", {"metadata": metadata, "status": status})

    def print_log(self, *lines: str | bytes, code: int = 0, end: bool = True, stuck: bool = False) -> int:
        """Wait for a Job that prints the run's log, and have its pod do so, as if these were all its lines.

        Returns after how many lines it begins.
        """
        job = eventually(self._job_that_prints)
        assert job is not None
        start = int(job["spec"]["template"]["spec"]["containers"][0]["command"][-2]) - 1
        self._printed.add(job["metadata"]["name"])
        pod = job["metadata"]["name"] + "-x"
        if stuck:
            self.fake.stuck.add(pod)
        self.fake.start_pod(pod, {"job-name": job["metadata"]["name"]}, container=manifest.LOG_CONTAINER, owner=job)
        self.fake.write(pod, str(len(lines)), *lines[start:], container=manifest.LOG_CONTAINER)
        if end:
            self.fake.end_container(pod, code, container=manifest.LOG_CONTAINER)
        return start

    def _job_that_prints(self) -> Json | None:
        """One that has no pod yet."""
        names = (job["metadata"]["name"] for job in self.fake.all("jobs"))
        waiting = [name for name in names if "-log-" in name and name not in self._printed]
        return self.fake.get("jobs", waiting[0]) if waiting else None

    def head_labels(self) -> dict[str, str]:
        """What marks a head pod of the run."""
        return manifest.labels(self.run) | {manifest.RUN_NAME_LABEL: self.run.run_id}

    def task(self, name: str = "nf-1", task: str = "hello (1)") -> str:
        """A task's pod that runs, as Nextflow makes it."""
        labels = {manifest.RUN_NAME_LABEL: self.run.run_id, "nextflow.io/taskName": task}
        self.fake.start_pod(name, labels, container=name)
        return name

    def job_at_work(self) -> Json | None:
        """The Job, once it is not suspended."""
        job = self.fake.get("jobs", self.job)
        return job if job and not job["spec"]["suspend"] else None

    def other_run(self) -> Run:
        """A run of another id."""
        return replace(self.run, run_id="run-20260130-120000-ffffffff")

    def close(self) -> None:
        """End all that is left."""
        for follow in self._follows:
            follow.leave()
        for api in self._apis:
            api.close()
        self.fake.stop()


def numbered(count: int, first: int = 1) -> Sequence[str]:
    """Lines that say where they stand."""
    return [f"line {number}" for number in range(first, first + count)]
