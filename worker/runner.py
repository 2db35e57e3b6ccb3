"""The story of one run, on one page: take it over, start it, follow it, end it.

Whatever a supervisor must know is in Redis or on the cluster, and every step may be done twice. So there is
one way out of every trouble: begin the story again. A new worker begins it in the same way.
"""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from shared import events, times
from shared.errors import CannotStart, ClusterAway, Fenced, RunNotFound, StateMoved, StoreAway
from shared.feed import Batch, Feed
from shared.lease import Held, Leases
from shared.runs import Run, RunStatus
from shared.store import Store
from worker.cluster import Chunk, Cluster, Outcome
from worker.scribe import Scribe

_RENEW_SECONDS = 0.5
_AWAY_SECONDS = 0.5
_STUMBLED_SECONDS = 3.0
_PATIENCE = 3
_FORGET_SECONDS = 3_600.0
_MESSAGE_LENGTH = 2_000
_log = logging.getLogger(__name__)


class Parting(Enum):
    """How a supervisor left a run."""

    ENDED = "the run has ended"
    NOT_MINE = "another supervises the run, or it waits for its turn"
    HANDED_BACK = "this worker stops; the run goes on and waits for the next one"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a supervisor works with. `stopping` tells whether this worker has been asked to end."""

    store: Store
    feed: Feed
    leases: Leases
    cluster: Cluster
    stopping: Callable[[], bool]


class Supervisor:
    """Carries one run from wherever it stands to its end; `ended` is its last record then."""

    def __init__(self, run_id: str, tools: Tools) -> None:
        self._run_id = run_id
        self._tools = tools
        self._held: Held | None = None
        self._renewed_at = 0.0
        self._stumbles: list[float] = []
        self._mistake: Exception | None = None
        self._first = False
        """Whether nobody can have started the run before."""
        self.ended: Run | None = None

    def supervise(self) -> Parting:
        """Do all that is left to do for the run; waits as long as Redis is away, while the run goes on."""
        while True:
            try:
                if self._mistake is not None and not self._give_up(self._mistake):
                    return Parting.HANDED_BACK
                return self._story()
            except (Fenced, RunNotFound) as error:
                _log.info("%s", error, extra={"action": "run.left", "run_id": self._run_id})
                return Parting.NOT_MINE
            except StateMoved as error:
                _log.warning("%s", error, extra={"action": "run.again", "run_id": self._run_id})
            except (StoreAway, ClusterAway) as error:
                _log.warning("%s", error, extra={"action": "away", "run_id": self._run_id})
                if self._tools.stopping():
                    return Parting.HANDED_BACK
                time.sleep(_AWAY_SECONDS)
            except Exception as error:  # a mistake of ours must not hold the slot for ever
                _log.exception("The supervisor stumbled.", extra={"action": "run.stumbled", "run_id": self._run_id})
                if self._tools.stopping():
                    return Parting.HANDED_BACK
                self._stumble(error)
                time.sleep(_STUMBLED_SECONDS)

    def _stumble(self, mistake: Exception) -> None:
        """Count mistakes that follow one another; those that are days apart end no run."""
        now = time.monotonic()
        self._stumbles = [at for at in self._stumbles if now - at < _FORGET_SECONDS] + [now]
        if len(self._stumbles) >= _PATIENCE and self._mistake is None:
            self._mistake = mistake

    def _story(self) -> Parting:
        run = self._tools.store.get(self._run_id).run
        if run.status.final:
            self.ended = run
            return Parting.ENDED
        if run.status is RunStatus.QUEUED or not self._take_lease():
            return Parting.NOT_MINE
        try:
            scribe = self._follow(run)
        except CannotStart as error:
            if run.status in (RunStatus.RUNNING, RunStatus.UNKNOWN) or not (error.sure or self._first):  # it may work
                raise ClusterAway(str(error)) from error
            self._cannot_start(run, str(error))
            return Parting.ENDED
        if scribe is None:
            self._tools.leases.release(self._run_id, self._fence)
            return Parting.HANDED_BACK
        self._end(run, scribe)
        return Parting.ENDED

    @property
    def _fence(self) -> int:
        assert self._held is not None  # noqa: S101 - nothing is written before the lease is taken
        return self._held.fence

    def _take_lease(self) -> bool:
        if self._held is not None:  # the story begins again: the lease may still be ours
            self._renew()
        else:
            self._held = self._tools.leases.acquire(self._run_id)
        return self._held is not None

    def _renew(self) -> None:
        self._held = self._tools.leases.renew(self._run_id, self._fence)
        self._renewed_at = time.monotonic()

    def _follow(self, run: Run) -> Scribe | None:
        """Start the run and write what it says until it ends; None when this worker must leave before."""
        if run.given_up is not None or (self._held and self._held.status is RunStatus.CANCELLING):
            self._tools.cluster.cancel(run)
        left = self._tools.feed.place(self._run_id)
        self._first = self._fence == 1 and left.batch == 0
        scribe = Scribe(run, left)
        for chunk in self._tools.cluster.follow(run, scribe.place):
            self._mind(run, chunk)
            self._append(scribe.take(chunk, time.monotonic()))
            if self._tools.stopping():
                return None
        scribe.close()
        return scribe

    def _mind(self, run: Run, chunk: Chunk) -> None:
        """Hold on to the lease, and do what has become of the run's status since."""
        if time.monotonic() - self._renewed_at >= _RENEW_SECONDS:
            self._renew()
            if self._held and self._held.status is RunStatus.CANCELLING:
                self._tools.cluster.cancel(run)
        if chunk.started and self._held and self._held.status in (RunStatus.STARTING, RunStatus.UNKNOWN):
            self._say_running()

    def _say_running(self) -> None:
        def change(run: Run) -> Run | None:
            if run.status not in (RunStatus.STARTING, RunStatus.UNKNOWN):
                return None
            return run.moved(RunStatus.RUNNING, times.now())

        after = self._tools.store.move(
            self._run_id, change, tell=lambda run: [events.status(run, times.now(), 0)], fence=self._fence
        )
        self._held = Held(self._fence, after.status)

    def _append(self, batch: Batch | None) -> None:
        if batch is not None:
            self._tools.feed.append(self._run_id, self._fence, batch)

    def _end(self, run: Run, scribe: Scribe) -> None:
        outcome = self._tools.cluster.outcome(run)
        if run.given_up is not None and outcome.cancelled:  # whoever gave it up was killed before it could say so
            outcome = replace(outcome, cancelled=False, reason=run.given_up)
        verdict, message = judge(self._tools.store.get(self._run_id).run.status, outcome, scribe)
        failure = message if verdict is RunStatus.FAILED else None
        self._append(scribe.last(failure, from_outside=outcome.from_outside))
        scribe.progress.end(succeeded=verdict is RunStatus.SUCCEEDED)
        self.ended = self._tools.store.end(
            self._run_id,
            lambda status: judge(status, outcome, scribe),  # it may have been cancelled since
            exit_code=outcome.code,
            at=outcome.finished_at,
            progress=scribe.progress.data(),
            fence=self._fence,
        )
        _log.info("Run ended: %s", self.ended.status, extra={"action": "run.ended", "run_id": self._run_id})

    def _give_up(self, mistake: Exception) -> bool:
        """Stop a run that cannot be supervised, and say so once it works no more; False when this worker must leave."""
        why = f"{type(mistake).__name__}: {mistake}"
        words = f"The service could not go on with this run and stopped it: {why}"

        def give_up(run: Run) -> Run | None:
            return None if run.status.final else replace(run, given_up=words)

        run = self._tools.store.move(self._run_id, give_up, tell=lambda _: [], fence=self._fence)
        outcome = Outcome(None)
        try:
            self._tools.cluster.cancel(run)  # first, so that what has not begun does not begin
            for _ in self._tools.cluster.follow(run, {}):
                self._tools.cluster.cancel(run)
                self._renew()
                if self._tools.stopping():
                    self._tools.leases.release(self._run_id, self._fence)
                    return False
            outcome = self._tools.cluster.outcome(run)
        except (StoreAway, ClusterAway, Fenced, RunNotFound):  # no mistake: whoever can goes on with it
            raise
        except Exception:  # what cannot be followed may have ended all the same
            if self._run_id in self._tools.cluster.what_works():  # two runs would work if the slot were free now
                raise
            _log.exception("Nobody saw how the run ended.", extra={"action": "run.lost", "run_id": self._run_id})

        def verdict(status: RunStatus) -> tuple[RunStatus, str]:
            if outcome.code == 0:
                return RunStatus.SUCCEEDED, f"Nextflow ended with success, but the service could not follow it: {why}"
            return (RunStatus.CANCELLED if status is RunStatus.CANCELLING else RunStatus.FAILED), words

        self._tools.store.end(self._run_id, verdict, exit_code=outcome.code, at=outcome.finished_at, fence=self._fence)
        self._mistake = None
        return True

    def _cannot_start(self, run: Run, message: str) -> None:
        def verdict(status: RunStatus) -> tuple[RunStatus, str]:
            if status is RunStatus.CANCELLING:
                return RunStatus.CANCELLED, "Cancelled before it started."
            return RunStatus.FAILED, message

        status, _ = verdict(self._tools.store.get(self._run_id).run.status)
        scribe = Scribe(run, self._tools.feed.place(self._run_id))
        self._append(scribe.last(message if status is RunStatus.FAILED else None, from_outside=True))
        self.ended = self._tools.store.end(self._run_id, verdict, fence=self._fence)  # it may have been cancelled since


def judge(status: RunStatus, outcome: Outcome, scribe: Scribe) -> tuple[RunStatus, str]:
    """The final status of a run and the words for it, from what was asked of it and how it ended.

    Whether a run was cancelled is told by our wish, not by its exit code: Nextflow ends with 1 either way.
    """
    if outcome.code == 0:
        return RunStatus.SUCCEEDED, _success(scribe)
    if status is RunStatus.CANCELLING or outcome.cancelled:
        return RunStatus.CANCELLED, _cancelled(outcome)
    if outcome.code is None or outcome.reason:
        return RunStatus.FAILED, outcome.reason or "Nobody saw how the run ended."
    if outcome.signal is not None:
        return RunStatus.FAILED, _signalled(outcome.signal)
    said = scribe.first_error
    silent = f"Nextflow ended with exit code {outcome.code} and said nothing."
    return RunStatus.FAILED, said[:_MESSAGE_LENGTH] if said else silent


def _success(scribe: Scribe) -> str:
    counts = scribe.progress.processes.values()
    done, cached = sum(count.succeeded for count in counts), sum(count.cached for count in counts)
    failed = sum(count.failed for count in counts)
    if not counts:
        return "It had no tasks."
    words = [f"{done} task{'' if done == 1 else 's'} succeeded"]
    words += [f"{cached} came from the cache"] if cached else []
    words += [f"{failed} failed and {'was' if failed == 1 else 'were'} ignored"] if failed else []
    return ", ".join(words) + "."


def _cancelled(outcome: Outcome) -> str:
    if outcome.code is None:
        return outcome.reason or "Cancelled before it started."
    if outcome.killed:
        return "Cancelled; it did not stop within its grace and was killed."
    return "Cancelled; Nextflow stopped its tasks and ended by itself."


def _signalled(number: int) -> str:
    text = f"Nextflow was ended by {signal.Signals(number).name} from outside (exit code {128 + number})."
    if number == signal.SIGKILL:
        text += " If the machine ran out of memory, give it more or run fewer tasks at once."
    return text + " Resume the run to go on."
