"""Reads the end of a run's log from the claim, where its pod was gone before it was read.

Nextflow's own pod writes all that it says to the claim too. A Job that does nothing else prints what is missing
there, and its log is followed like any other.
"""

import logging
import zlib
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
        minute when hurried), and not to be placed when others before them are missing.
        """
        rest = _Rest(source, Tail(dict(cursor)), self._telling.relay)
        if rest.first is None or source.container != manifest.CONTAINER:
            return False
        message = f"{source.pod} was gone before the end of its log was read; the claim has the rest."
        self._telling.say(Notice(f"salvage/{source.key}", "warning", message, "kubernetes"))
        pod = self._begun(rest.first)
        if pod is None:
            return False
        name = pod["metadata"]["name"]
        namespace = self._settings.nextflow_namespace
        follower = Follower(self._api, namespace, Source(name, manifest.LOG_CONTAINER), None, rest.take)
        follower.start()
        code: int | None = None
        try:
            while not follower.done:
                if (code := self._exit_code(rest.first, name)) is not None:
                    follower.container_ended()
                follower.mind()
                self._patience.pause(_PAUSE_SECONDS)
        finally:
            follower.stop()
        whole = code == 0 and not follower.short and rest.fits
        if whole:
            self._telling.say(Said(source, [], rest.cursor, last=True))
        return whole

    def _begun(self, first: int) -> Json | None:
        """The pod that prints the log from that line on, made if need be; None when it does not begin in time."""
        made = False
        waited = 0.0
        while waited < (_HURRIED_SECONDS if self._hurried() else _PATIENCE_SECONDS):
            try:
                made = made or self._make(first)
                begun = [pod for pod in self._listed(first) if diagnosis.begun(pod, manifest.LOG_CONTAINER)]
                if begun:
                    return begun[0]
            except ClusterRefused as error:  # a quota, or rights that are mended in a moment
                _log.info("%s", error, extra={"action": "salvage.refused", "run_id": self._run.run_id})
            except ClusterAway:
                self._patience.tell_away()
                waited -= _PAUSE_SECONDS
            self._patience.pause(_PAUSE_SECONDS)
            waited += _PAUSE_SECONDS
        return None

    def _make(self, first: int) -> bool:
        try:
            self._api.create(self._jobs, manifest.log_job(self._run, self._settings, first))
        except ClusterRefused as error:
            if error.reason != "AlreadyExists":
                raise
        return True

    def _listed(self, first: int) -> list[Json]:
        query = {"labelSelector": f"job-name={manifest.log_job_name(self._run, first)}"}
        return list(self._api.get(self._pods, query).get("items") or ())

    def _exit_code(self, first: int, name: str) -> int | None:
        """How the pod has ended, once it has; one that is gone has not ended well."""
        pods = self._patience.insist(lambda: self._listed(first))
        pod = next((pod for pod in pods if pod["metadata"]["name"] == name), None)
        if pod is None:
            return -1
        state = diagnosis.ended(pod, manifest.LOG_CONTAINER)
        return None if state is None else int(state["exitCode"])


class _Rest:
    """What is printed of a log: first some lines that are known, so that it is sure to be the place, then the rest."""

    def __init__(self, source: Source, tail: Tail, relay: Callable[[Said], None]) -> None:
        self._source = source
        self._tail = tail
        self._relay = relay
        self._known = tail.known
        self.first = None if tail.lines is None else tail.lines - len(self._known) + 1
        """The number of the first line to print."""
        self._wrong = False

    @property
    def cursor(self) -> dict[str, Any]:
        """Where reading has come to in the log itself."""
        return self._tail.cursor

    @property
    def fits(self) -> bool:
        """Whether the lines that are known came first."""
        return not self._known and not self._wrong

    def take(self, said: Said) -> None:
        """A piece of the log that is printed."""
        records = [record for record in said.records if self._is_new(record)]
        if not (records and self.fits):
            return
        for record in records:
            self._tail.take(Line(record.timestamp, record.text.encode()))
        own = [replace(record, pod=self._source.pod, container=self._source.container) for record in records]
        self._relay(Said(self._source, own, self.cursor, said.gap))

    def _is_new(self, record: Record) -> bool:
        if not self._known:
            return True
        same = zlib.crc32(record.text.encode()) == self._known.pop(0)
        # What is no UTF-8 has been made so, and looks different from what was read.
        self._wrong |= not same and "\N{REPLACEMENT CHARACTER}" not in record.text
        return False
