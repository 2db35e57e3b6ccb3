"""Sees what becomes of runs on a cluster without the service: asks the API server itself, and reads the node's disk."""

import gzip
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cluster.node import Node
from faults.viewer import numbers

_PULSE_SECONDS = 0.2
_RUN = "nextflow-controller/run-id"


@dataclass
class _Head:
    """A head pod, from when its Nextflow was first seen."""

    run_id: str
    began: float
    beside: list[str]
    code: int | None = None
    gone: bool = False


@dataclass
class _Log:
    """The files of one pod's log, in the order they appeared; open, so that they can be read when they are gone."""

    files: dict[int, IO[bytes]] = field(default_factory=dict)


class Witness(threading.Thread):
    """Watches the head pods of one namespace until it is dismissed."""

    def __init__(self, node: Node, namespace: str) -> None:
        super().__init__(daemon=True, name=f"witness {namespace}")
        self._node = node
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._namespace = namespace
        self._heads: dict[str, _Head] = {}
        self._logs: dict[str, _Log] = {}
        self._runs: dict[str, str] = {}
        self._dismissed = threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._dismissed.wait(_PULSE_SECONDS):
                self._look()
        except Exception as failure:  # a witness that has looked away must not be heard
            self._failure = failure

    def dismiss(self) -> None:
        """Watch no longer."""
        self._dismissed.set()
        self.join()
        for log in self._logs.values():
            for file in log.files.values():
                file.close()

    def journal(self) -> list[dict[str, Any]]:
        """See `Stage.journal`."""
        if self._failure is not None:
            raise self._failure
        self._look()
        found: list[dict[str, Any]] = []
        for head in self._heads.values():
            found.append({"began": head.began, "run_id": head.run_id, "beside": head.beside})
            if head.code is not None:
                found.append({"ended": True, "run_id": head.run_id, "code": head.code})
        return found

    def printed(self, run_id: str) -> list[int]:
        """The numbers in what the run's containers wrote to the node's disk."""
        found: list[int] = []
        for uid, log in self._logs.items():
            if self._runs.get(uid) == run_id:
                for file in log.files.values():
                    found += numbers(_texts(file))
        return found

    def files_of(self, run_id: str) -> int:
        """How many files the run's log took, one after the other."""
        return sum(len(log.files) for uid, log in self._logs.items() if self._runs.get(uid) == run_id)

    def left_of(self, run_id: str) -> list[str]:
        """Names of the run's pods that have not ended."""
        while (items := self._items(f"labelSelector=nextflow.io/runName={run_id}")) is None:
            time.sleep(_PULSE_SECONDS)
        return [pod["metadata"]["name"] for pod in items if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def _look(self) -> None:
        for directory in self._node.pod_logs.glob(f"{self._namespace}_*/nextflow"):
            self._open(directory)
        items = self._items(f"labelSelector={_RUN}")
        if items is None:  # the API server is away just now
            return
        for uid in self._heads.keys() - {pod["metadata"]["uid"] for pod in items}:
            self._heads[uid].gone = True
        for pod in items:
            self._take(pod)

    def _take(self, pod: Mapping[str, Any]) -> None:
        uid, run_id = pod["metadata"]["uid"], pod["metadata"]["labels"][_RUN]
        self._runs[uid] = run_id
        for status in pod["status"].get("containerStatuses") or ():
            state = status["state"]
            if uid not in self._heads and ("running" in state or "terminated" in state):
                beside = [head.run_id for head in self._heads.values() if head.code is None and not head.gone]
                self._heads[uid] = _Head(run_id, time.time(), beside)
            if "terminated" in state:
                self._heads[uid].code = state["terminated"]["exitCode"]

    def _items(self, query: str) -> list[dict[str, Any]] | None:
        answer = self._node.ask(f"{self._pods}?{query}")
        return None if answer is None else list(answer["items"])

    def _open(self, directory: Path) -> None:
        log = self._logs.setdefault(directory.parent.name.rpartition("_")[2], _Log())
        for path in sorted(directory.iterdir(), key=lambda path: (path.name == "0.log", path.name)):
            try:
                inode = path.stat().st_ino
                if inode not in log.files and path.suffix not in (".tmp", ".gz"):
                    log.files[inode] = path.open("rb")
            except FileNotFoundError:  # turned over just now; the next look finds it by its other name
                continue


def _texts(file: IO[bytes]) -> list[str]:
    """What the lines of a file say that the container runtime wrote: `TIME STREAM F TEXT`."""
    file.seek(0)
    content = file.read()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    lines = (line.split(b" ", 3) for line in content.splitlines())
    return [words[3].decode(errors="replace") for words in lines if len(words) == 4]
