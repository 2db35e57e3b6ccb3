"""Reads the end of a run's log from the claim, where its pod was gone before it was read.

Nextflow's own pod writes all that it says to the claim too. A Job that does nothing else prints what is missing
there, and its log is followed like any other.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shared.errors import ClusterAway, ClusterRefused
from shared.runs import Run
from shared.settings import Settings
from worker.cluster import Notice, Record
from worker.kube import diagnosis, manifest
from worker.kube.api import Api, Json
from worker.kube.follower import Follower, Said, Source
from worker.kube.patience import Patience
from worker.kube.tail import Line, Tail
from worker.kube.telling import Telling

_PAUSE_SECONDS = 0.5
# A node that was short of something takes no pod for some minutes.
_PATIENCE_SECONDS, _HURRIED_SECONDS = 600.0, 60.0
# A pod that reads may be evicted as the one before it was; the next goes on where that came to.
_ATTEMPTS = 5
_log = logging.getLogger(__name__)


class Salvage:
    """For one run. Its lines are told as if they had been read from their own pod; `hurried`: its end is wanted."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        run: Run,
        patience: Patience,
        telling: Telling,
        hurried: Callable[[], bool],
    ) -> None:
        self._api = api
        self._settings = settings
        self._run = run
        self._patience = patience
        self._telling = telling
        self._hurried = hurried
        self._jobs = f"/apis/batch/v1/namespaces/{settings.nextflow_namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{settings.nextflow_namespace}/pods"

    def read(self, source: Source, cursor: Mapping[str, Any]) -> bool:
        """Say the lines after `cursor`; returns whether those were all. Raises Stopped.

        They are not to be had when the claim, or a node for the pod that reads it, is not there for ten minutes (a
        minute when hurried), and not to be placed when others before them are missing. What stands beside Nextflow in
        its pod is not there.
        """
        tail = Tail(dict(cursor))
        if tail.known is None or source.container != manifest.CONTAINER:
            return False
        self._telling.say(Notice(f"salvage/{source.key}", "warning", _beginning(source, cursor), "kubernetes"))
        for _ in range(_ATTEMPTS):
            rest = _Rest(source, tail, self._telling)
            ended_well = self._read(rest)
            if rest.wrong:
                return False
            if ended_well and rest.whole:
                self._telling.say(Said(source, [], tail.cursor, last=True))
                return True
            if ended_well is None:
                return False
        return False

    def _read(self, rest: "_Rest") -> bool | None:
        """Have a pod print the rest, and read that; returns whether it ended well, None when it took too long."""
        job = manifest.log_job(self._run, self._settings, rest.start)
        pod = self._begun(job)
        if pod is None:
            return None
        source = Source(pod["metadata"]["name"], manifest.LOG_CONTAINER)
        follower = Follower(self._api, self._settings.nextflow_namespace, source, None, rest.take)
        follower.start()
        code: int | None = None
        waited, seen = 0.0, -1
        try:
            while not follower.done:
                if (code := self._exit_code(job, source.pod)) is not None:
                    follower.container_ended()
                follower.mind()
                waited, seen = (waited, seen) if rest.received == seen else (0.0, rest.received)
                if self._too_long(waited):
                    return None
                self._patience.pause(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS
        finally:
            follower.stop()
        return code == 0 and not follower.short

    def _begun(self, job: Json) -> Json | None:
        """The pod of a Job, made if need be, once it has begun; None when it does not in time."""
        made = False
        waited = 0.0
        while not self._too_long(waited):
            try:
                made = made or self._make(job)
                begun = [pod for pod in self._pods_of(job) if diagnosis.begun(pod, manifest.LOG_CONTAINER)]
                if begun:  # one that failed is replaced by another
                    return max(begun, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
            except ClusterRefused as error:  # a quota, or rights that are mended in a moment
                _log.info("%s", error, extra={"action": "salvage.refused", "run_id": self._run.run_id})
            except ClusterAway:
                self._patience.tell_away()
                waited -= _PAUSE_SECONDS
            self._patience.pause(_PAUSE_SECONDS)
            waited += _PAUSE_SECONDS
        return None

    def _too_long(self, waited: float) -> bool:
        return waited >= (_HURRIED_SECONDS if self._hurried() else _PATIENCE_SECONDS)

    def _make(self, job: Json) -> bool:
        try:
            self._api.create(self._jobs, job)
        except ClusterRefused as error:
            if error.reason != "AlreadyExists":
                raise
        return True

    def _pods_of(self, job: Json) -> list[Json]:
        query = {"labelSelector": f"job-name={job['metadata']['name']}"}
        return list(self._api.get(self._pods, query).get("items") or ())

    def _exit_code(self, job: Json, name: str) -> int | None:
        """How the pod of that name has ended, once it has; one that is gone has not ended well."""
        pods = self._patience.insist(lambda: self._pods_of(job))
        pod = next((pod for pod in pods if pod["metadata"]["name"] == name), None)
        if pod is None:
            return -1
        state = diagnosis.ended(pod, manifest.LOG_CONTAINER)
        return None if state is None else int(state["exitCode"])


def _beginning(source: Source, cursor: Mapping[str, Any]) -> str:
    if cursor:
        return f"{source.pod} was gone before the end of its log was read; the claim has the rest."
    return "Nobody saw Nextflow at work, or read what it said; the claim has all of that, if there was any."


class _Rest:
    """What is printed of a log: its length, then lines that are known, which tell that it is the place, then the rest.

    The known ones begin after `start` lines. `received` counts those that came. `wrong`: it is not the place.
    """

    def __init__(self, source: Source, tail: Tail, telling: Telling) -> None:
        assert tail.known is not None  # noqa: S101 - asked before
        self.start, self._known = tail.known
        self.received = 0
        self.wrong = False
        self._source = source
        self._tail = tail
        self._telling = telling
        self._total: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all has come that there is."""
        missing = None if self._total is None else self._total - self.start - self.received
        # The last line may have no newline at its end, and is not counted there.
        return missing in (0, -1) and not self._known and not self.wrong

    def take(self, said: Said) -> None:
        """A piece of what is printed."""
        new = [pair for pair in zip(said.lines, said.records, strict=True) if self._is_new(pair[0])]
        if new and not self.wrong:
            for line, _ in new:
                self._tail.take(line)
            records = [self._as_its_own(record) for _, record in new]
            self._telling.started = True
            self._telling.relay(Said(self._source, records, self._tail.cursor, said.gap))

    def _is_new(self, line: Line) -> bool:
        if self._total is None:
            self._total = int(line.text) if line.text.strip().isdigit() else -1
            self.wrong |= self._total < self.start
            return False
        self.received += not line.goes_on
        if self._known:
            self.wrong |= line.mark[1] != self._known.pop(0)
            return False
        return True

    def _as_its_own(self, record: Record) -> Record:
        return replace(record, pod=self._source.pod, container=self._source.container)
