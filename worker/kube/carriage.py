"""Carries one run through the cluster, in threads of its own: the Job, its pods, their logs, and what they leave.

One thread acts: it takes in what the watches see, calls the API server, and repeats what fails until it
works, for as long as the run lasts. Whoever iterates over `chunks` is never held up by the cluster.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shared.errors import CannotStart, ClusterRefused
from shared.runs import Run, RunStatus
from shared.settings import Settings
from worker.cluster import Chunk, Notice, Outcome
from worker.kube import diagnosis, manifest
from worker.kube.api import Api, Json
from worker.kube.follower import Follower, Said, Source
from worker.kube.patience import Patience, Stopped
from worker.kube.removal import Removal, has_ended, is_head, is_own, only_prints
from worker.kube.salvage import Salvage
from worker.kube.slot import Grant, Slot, SlotTaken, finished
from worker.kube.telling import Telling, hole, lost_end
from worker.kube.verdict import verdict
from worker.kube.watch import Watch

_PULSE_SECONDS = 0.2
_LATE_SECONDS = 60.0
_STRANGE = 100
_COUNTS = ("active", "failed", "succeeded")


@dataclass(slots=True)
class _Seen:
    """What the watches have told, by uid."""

    job: Json | None = None
    job_known: bool = False
    untouched: bool = False
    """Whether the Job was seen at first, and had had no pod."""
    suspended: bool = False
    """Whether the Job was seen, and had not been let go."""
    pods: dict[str, Json] = field(default_factory=dict)
    pods_known: bool = False


class Carriage:
    """One run on the cluster. `cancelled` tells whether it is to be ended."""

    def __init__(
        self, api: Api, settings: Settings, run: Run, place: Mapping[str, Any], cancelled: Callable[[], bool]
    ) -> None:
        self._api = api
        self._settings = settings
        self._run = run
        self._cancelled = cancelled
        namespace = settings.nextflow_namespace
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._job = f"{self._jobs}/{run.job_name}"
        self._secrets = f"/api/v1/namespaces/{namespace}/secrets"
        self._slot = Slot(api, namespace)
        self._telling = Telling(place)
        self._unread = [key for key in self._telling.cursors if key not in self._telling.read]
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = self._telling.stopping
        self._say = self._telling.say
        self._seen = _Seen()
        self._heads: dict[str, Json] = {}
        self._followers: dict[str, Follower] = {}
        self._grant: Grant | None = None
        self._adopted = self._let_go_now = False
        self._strange: deque[Json] = deque(maxlen=_STRANGE)
        self._ending, self._ending_at = False, 0.0
        self._looked = False
        self._patience = Patience(api, run.run_id, self._stopping, self._say)
        self._patience.begun = run.status in (RunStatus.RUNNING, RunStatus.UNKNOWN) or bool(self._telling.cursors)
        self._removal = Removal(api, namespace, run, self._patience, self._say)
        self._salvage = Salvage(api, settings, run, self._patience, self._telling, cancelled)
        self._watches = self._make_watches()
        self._pods_watch = self._watches[1]
        self._thread = threading.Thread(target=self._carry, name=f"carriage {run.run_id}", daemon=True)

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended, once `chunks` is exhausted."""
        return self._telling.outcome

    def chunks(self) -> Iterator[Chunk]:
        """See `Cluster.follow`."""
        self._thread.start()
        try:
            yield from self._telling.chunks()
        finally:
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for watch in self._watches:
            watch.stop()
        for follower in self._followers.values():
            follower.stop()

    # What follows runs in the carriage's own thread, but for what the watches put into its box.

    def _make_watches(self) -> list[Watch]:
        def told(take: Callable[[Json, bool], None]) -> Callable[[Json, bool], None]:
            return lambda item, gone: self._inbox.put(partial(take, item, gone))

        run = self._run
        events = f"/api/v1/namespaces/{self._settings.nextflow_namespace}/events"
        return [
            Watch(
                self._api,
                self._jobs,
                {"labelSelector": f"{manifest.RUN_LABEL}={run.run_id}"},
                told(self._take_job),
                lambda: self._inbox.put(self._job_listed),
            ),
            Watch(
                self._api,
                self._pods,
                {"labelSelector": f"{manifest.RUN_NAME_LABEL}={run.run_id}"},
                told(self._take_pod),
                lambda: self._inbox.put(self._pods_listed),
            ),
            Watch(self._api, events, {"fieldSelector": "type=Warning"}, told(self._take_event)),
        ]

    def _carry(self) -> None:
        try:
            self._begin()
            for watch in self._watches:
                watch.start()
            while not self._over():
                self._take_in()
                if self._cancelled() and not self._ending:
                    self._end_job()
                self._mind_the_end()
                if self._ending and self._seen.job is not None:
                    # Another worker that slept may have made one just now, and may never wake.
                    self._removal.job(self._seen.job["metadata"]["uid"], "Foreground")
            self._removal.all_that_is_left(with_head=self._ending)
            self._read_what_is_missing()
            self._tell_holes()
            self._say(self._judge())
        except Stopped:
            self._stop()  # a follower may have begun after whoever left had stopped the others
        except Exception as error:  # told to whoever iterates, who knows what to do
            with suppress(Stopped):
                self._say(error)

    def _mind_the_end(self) -> None:
        """Say so when a head pod takes much longer to go than it was given."""
        grace = max(self._settings.cancel_grace_seconds, manifest.GRACE_SECONDS)
        if self._ending and time.monotonic() - self._ending_at > grace + _LATE_SECONDS:
            self._removal.tell_stuck([pod for pod in self._seen.pods.values() if not has_ended(pod)])

    def _begin(self) -> None:
        """Have the run's Job at work, unless it is cancelled or was there once."""
        self._grant = self._claim()
        self._adopted = self._grant is not None and self._grant.job_uid is not None
        if self._grant is None or self._grant.cancelled or self._cancelled():
            return
        self._patience.begun = self._patience.begun or self._adopted
        try:
            if not self._adopted:
                if self._run.resumes:
                    self._removal.tasks_of_session()
                self._make(manifest.order(self._run, self._settings))
            self._let_go()
        except ClusterRefused as error:
            if self._adopted and not self._is_suspended():
                return  # it works already
            with suppress(ClusterRefused):  # a Job that was made would wait for ever
                self._end_job()
            raise CannotStart(
                f"Kubernetes refuses the run's Job: {error}. Check the rights of the worker's service account, the "
                f"namespace {self._settings.nextflow_namespace}, and its quotas."
            ) from error

    def _is_suspended(self) -> bool:
        try:
            job = self._patience.insist(lambda: self._api.get(self._job))
        except ClusterRefused:
            return False
        return bool(job.get("spec", {}).get("suspend"))

    def _claim(self) -> Grant | None:
        """Hold the slot; None when the run is cancelled while it waits for it."""
        while not self._cancelled():
            try:
                return self._patience.insist(lambda: self._slot.claim(self._run.run_id))
            except SlotTaken as error:
                message = f"{error} This one waits for its end."
                self._say(Notice(f"slot/{error.holder}", "warning", message, "kubernetes"))
                self._patience.pause(1.0)
            except ClusterRefused as error:
                raise CannotStart(
                    f"Kubernetes refuses the Lease that keeps runs apart: {error}. Check the rights of the worker's "
                    f"service account, and that the namespace {self._settings.nextflow_namespace} exists.",
                    sure=False,
                ) from error
        return None

    def _make(self, order: manifest.Order) -> None:
        """Make the Job, suspended, and its Secret, and have the Lease take them down."""
        uid = self._patience.insist(lambda: self._made_job(order))["metadata"]["uid"]
        self._patience.insist(lambda: self._made_secret(order, uid))
        try:
            self._grant = self._patience.insist(lambda: self._slot.record_job(self._run.run_id, uid))
        except SlotTaken:  # this worker slept, and the run has ended meanwhile
            self._grant = Grant(cancelled=True, job_uid=None)
        if self._grant.job_uid != uid:
            self._removal.job(uid, "Background")

    def _made_job(self, order: manifest.Order) -> Json:
        try:
            return self._api.create(self._jobs, manifest.job(order))
        except ClusterRefused as error:
            if error.reason != "AlreadyExists":
                raise
        found = self._api.get(self._job)
        if not is_own(found, self._run):
            raise CannotStart(f"A Job {self._run.job_name} that is not the run's own is in the way. Delete it.")
        return found

    def _made_secret(self, order: manifest.Order, uid: str) -> None:
        try:
            self._api.create(self._secrets, manifest.secret(order, uid))
        except ClusterRefused as error:
            if error.reason != "AlreadyExists":
                raise

    def _let_go(self) -> None:
        """Let the Job that the Lease has taken down begin; one that is gone by now stays gone."""
        if self._grant is None or self._grant.cancelled:
            return
        change = {"metadata": {"uid": self._grant.job_uid}, "spec": {"suspend": False}}
        try:
            self._patience.insist(lambda: self._api.merge(self._job, change))
            self._let_go_now, self._seen.suspended = True, False
        except ClusterRefused as error:
            if error.status not in (404, 409, 422):  # it is gone, or another bears its name
                raise

    def _over(self) -> bool:
        """Whether nothing of the Job is at work any more and all its logs are read."""
        seen = self._seen
        if not (seen.job_known and seen.pods_known):
            return False
        if self._cancelled() and not self._ending:
            return False
        if seen.job is not None and finished(seen.job) is None:
            return False
        if not self._looked:
            self._look_at_pods()
        living = [pod for pod in seen.pods.values() if is_head(pod) and not has_ended(pod)]
        if seen.job is None:
            for pod in living:  # its Job was deleted and it was left behind
                self._removal.pod(pod)
        return not living and all(follower.done for follower in self._followers.values())

    def _look_at_pods(self) -> None:
        """See the pods as they are: the watch may not yet have told of one whose Job has ended already."""
        selector = {"labelSelector": f"{manifest.RUN_NAME_LABEL}={self._run.run_id}"}
        for pod in self._patience.insist(lambda: self._api.get(self._pods, selector)).get("items") or ():
            self._take_pod(pod, gone=False)
        self._looked = True

    def _take_in(self) -> None:
        """What the watches have seen since; waits for it, for the time of a pulse."""
        try:
            self._inbox.get(timeout=_PULSE_SECONDS)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass
        if self._stopping.is_set():
            raise Stopped
        for follower in self._followers.values():
            follower.mind()
        self._patience.tell_away()

    def _take_job(self, job: Json, gone: bool) -> None:
        if not self._seen.job_known:
            self._seen.untouched = not any(job.get("status", {}).get(count) for count in _COUNTS)
        self._seen.job = None if gone else job
        self._seen.suspended = bool(job["spec"].get("suspend")) and not self._let_go_now

    def _job_listed(self) -> None:
        self._seen.job_known = True

    def _pods_listed(self) -> None:
        self._seen.pods_known = True

    def _take_pod(self, pod: Json, gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        if only_prints(pod):
            return
        unseen = uid not in self._seen.pods
        if gone:
            self._seen.pods.pop(uid, None)
        else:
            self._seen.pods[uid] = pod
        if unseen and not gone:
            for event in [event for event in self._strange if event["involvedObject"].get("uid") == uid]:
                self._take_event(event, gone=False)
        if not self._ending:
            for notice in diagnosis.of_pod(pod):
                self._say(notice)
        if is_head(pod):
            self._heads[uid] = pod
            self._follow_logs(pod, gone=gone)

    def _take_event(self, event: Json, gone: bool) -> None:
        about = event.get("involvedObject", {})
        own = about.get("uid") in self._seen.pods or about.get("name") == self._run.job_name
        if not own and not gone and about.get("kind") == "Pod":
            self._strange.append(event)  # its pod may be seen in a moment
        if own and not gone and not self._ending:
            for notice in diagnosis.of_event(event):
                self._say(notice)

    def _follow_logs(self, pod: Json, *, gone: bool) -> None:
        status = pod.get("status", {})
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            state = container.get("state", {})
            begun = diagnosis.has_begun(container)
            source = Source(pod["metadata"]["name"], container["name"])
            follower = self._followers.get(source.key)
            if follower is None and begun:
                follower = Follower(
                    self._api,
                    self._settings.nextflow_namespace,
                    source,
                    self._telling.cursors.get(source.key),
                    self._telling.relay,
                    whole=source.key in self._telling.read,
                    begun=_began(state) if container["name"] == manifest.CONTAINER else None,
                )
                # A copy, as whoever iterates may be stopping all of them just now.
                self._followers = self._followers | {source.key: follower}
                follower.start()
            if begun and container["name"] == manifest.CONTAINER:
                self._telling.started = True
            if follower is not None and ("terminated" in state or gone):
                follower.container_ended()

    def _read_what_is_missing(self) -> None:
        """Take what went with a pod before it was read from the claim, which has it too; or say that it is lost."""
        missing = self._missing()
        for source, cursor in missing:
            if not self._salvage.read(source, cursor):
                self._say(lost_end(source.key))
                self._say(Said(source, [], cursor, last=True))
        if missing:
            self._removal.all_that_is_left(with_head=self._ending)

    def _tell_holes(self) -> None:
        """Say how much of a log that was read to its end has not come: a stream gives no sign of what it leaves out."""
        for pod in self._heads.values():
            key = Source(pod["metadata"]["name"], manifest.CONTAINER).key
            printed, follower = diagnosis.printed(pod, manifest.CONTAINER), self._followers.get(key)
            if printed is None or follower is None or follower.short:
                continue
            came = follower.cursor["lines"]
            if came is not None and came < printed:
                log = manifest.log_path(self._run, self._settings)
                self._say(hole(key, printed - came, printed, log, self._settings.work_pvc))

    def _missing(self) -> list[tuple[Source, dict[str, Any]]]:
        """The logs whose ends were not read, and where reading had come to."""
        followed = [(one.source, one.cursor) for one in self._followers.values() if one.short]
        # Whoever followed these before was away when their pods went.
        cursors = self._telling.cursors
        left = [(Source.of(key), cursors[key]) for key in self._unread if key not in self._followers]
        known = {Source.of(key).container for key in (*cursors, *self._followers)}
        if manifest.CONTAINER not in known and self._may_have_worked():
            left.append((Source(self._run.job_name, manifest.CONTAINER), {}))  # nobody ever saw it at work
        return followed + left

    def _may_have_worked(self) -> bool:
        """Whether Nextflow may have been at work without anybody seeing it."""
        if self._grant is None or self._grant.job_uid is None or self._seen.suspended:
            return False
        if self._heads:  # one that was watched to its end has not been at work
            return not all(map(self._pods_watch.saw_to_its_end, self._heads))
        if self._ending:  # nor was there one before, or since
            return self._pods_watch.missed or (self._adopted and not self._seen.untouched)
        status = self._seen.job.get("status", {}) if self._seen.job else None
        return status is None or bool(status.get("failed") or status.get("succeeded"))

    def _end_job(self) -> None:
        """Let nothing of the run begin any more, and have the Job and its pods go."""
        self._ending, self._ending_at = True, time.monotonic()
        with suppress(SlotTaken):  # it does not hold the slot, so no Job of its own is let go
            grant = self._patience.insist(lambda: self._slot.cancel(self._run.run_id))
            self._adopted = self._adopted or (self._grant is None and grant.job_uid is not None)
            self._grant = self._grant or grant
        job = self._removal.own_job()
        if job is not None:
            self._removal.job(job["metadata"]["uid"], "Foreground")

    def _judge(self) -> Outcome:
        seen, granted = self._seen.job, self._grant is None or not self._grant.cancelled
        cancelled = self._ending or not (granted or self._heads)
        outcome = verdict(self._heads.values(), seen, cancelled=cancelled, started=self._telling.started)
        self._telling.started = self._telling.started or outcome.code is not None
        return outcome


def _began(state: Json) -> str | None:
    found: str | None = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return found
