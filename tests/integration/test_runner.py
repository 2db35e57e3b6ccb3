"""The story of a run where it meets trouble: what others do to it meanwhile, and a cluster that cannot be asked."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from shared.errors import CannotStart
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.runs import Run, RunStatus
from shared.store import Store
from worker import runner
from worker.cluster import Chunk, Outcome, Record
from worker.runner import Parting, Supervisor, Tools

MakeRun = Callable[..., Run]
Eventually = Callable[..., Any]


@dataclass
class Cluster:
    """One that says a line and ends, or refuses."""

    exit_code: int = 0
    refusal: CannotStart | None = None
    stumbles: int = 0
    lines: int = 1
    cancelled: bool = False

    def follow(self, _run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        if self.refusal is not None:
            raise self.refusal
        if self.stumbles:
            self.stumbles -= 1
            raise ZeroDivisionError
        for number in range(int(place.get("offset", 0)), self.lines):
            if self.cancelled:
                return
            yield Chunk([Record("2026-01-31T00:00:00Z", "stdout", "hello")], {"offset": number + 1}, started=True)
            time.sleep(0.05)

    def outcome(self, _run: Run) -> Outcome:
        return Outcome(self.exit_code, cancelled=self.cancelled)

    def cancel(self, _run: Run) -> None:
        self.cancelled = True

    def what_works(self) -> Mapping[str, str]:
        return {}

    def check(self) -> str:
        return "here"


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Set to have supervisors leave; set at the end of each test."""
    event = threading.Event()
    yield event
    event.set()


Supervise = Callable[[str, Cluster], list[Parting]]


@pytest.fixture
def supervise(store: Store, feed: Feed, leases: Leases, stop: threading.Event) -> Iterator[Supervise]:
    """Has a run supervised in a thread of its own; gives where the parting will be."""
    threads: list[threading.Thread] = []

    def begin(run_id: str, cluster: Cluster) -> list[Parting]:
        partings: list[Parting] = []
        supervisor = Supervisor(run_id, Tools(store, feed, leases, cluster, stop.is_set))
        threads.append(threading.Thread(target=lambda: partings.append(supervisor.supervise())))
        threads[-1].start()
        return partings

    yield begin
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_run_from_its_start_to_its_end(
    store: Store, supervise: Supervise, make_run: MakeRun, eventually: Eventually
) -> None:
    """It is told what the cluster told."""
    run_id = store.submit(make_run(), "queue").run_id
    partings = supervise(run_id, Cluster())
    eventually(lambda: partings)
    assert partings == [Parting.ENDED]
    assert store.get(run_id).run.status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(exit_code=1),
        Cluster(refusal=CannotStart("No such pipeline.", sure=True)),
        Cluster(exit_code=1, stumbles=1),
    ],
    ids=["fails", "cannot start", "stumbles"],
)
def test_a_cancel_taken_at_the_last_moment_is_kept(
    store: Store,
    supervise: Supervise,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Cluster,
) -> None:
    """Whoever was answered `cancelled: true` sees a run that did not succeed `cancelled`, whoever looked before."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    run_id = store.submit(make_run(), "queue").run_id
    end, taken = store.end, []

    def late(*arguments: Any, **more: Any) -> Run:
        taken.append(store.cancel(run_id)[1])
        return end(*arguments, **more)

    monkeypatch.setattr(store, "end", late)
    partings = supervise(run_id, cluster)
    eventually(lambda: partings)
    assert taken == [True]
    assert store.get(run_id).run.status is RunStatus.CANCELLED


def test_what_was_given_up_is_not_called_cancelled(
    store: Store,
    feed: Feed,
    leases: Leases,
    supervise: Supervise,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that gives a run up stops it, and is killed before it can say so; the next one tells why it ended."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    run_id = store.submit(make_run(), "queue").run_id
    cluster = Cluster(exit_code=1, stumbles=1)

    class Killed(BaseException):
        """The end of a process."""

    calls: list[str] = []

    def killed(_run: Run) -> None:
        calls.append("cancel")
        if len(calls) == 1:  # before anybody was told
            raise Killed
        cluster.cancelled = True

    monkeypatch.setattr(cluster, "cancel", killed)
    first = Supervisor(run_id, Tools(store, feed, leases, cluster, lambda: False))
    with pytest.raises(Killed):
        first.supervise()
    assert not store.get(run_id).run.status.final
    leases.release(run_id, 1)
    partings = supervise(run_id, cluster)
    eventually(lambda: partings)
    run = store.get(run_id).run
    assert run.status is RunStatus.FAILED
    assert run.message is not None
    assert "could not go on with this run and stopped it: ZeroDivisionError" in run.message


def test_a_run_that_may_work_is_not_ended_by_a_worker_that_cannot_ask(
    store: Store, feed: Feed, leases: Leases, supervise: Supervise, make_run: MakeRun
) -> None:
    """A new worker without a way to the cluster cannot know: the run stays as it is, though it is to be cancelled."""
    run_id = store.submit(make_run(), "queue").run_id
    held = leases.acquire(run_id)
    assert held is not None
    feed.append(run_id, held.fence, Batch(1, {"logs": {}}))
    leases.release(run_id, held.fence)
    store.cancel(run_id)
    supervise(run_id, Cluster(refusal=CannotStart("No cluster is configured.", sure=False)))
    time.sleep(1.5)
    assert store.get(run_id).run.status is RunStatus.CANCELLING
    assert store.active_id() == run_id


def test_a_run_that_nobody_began_fails_with_the_words(
    store: Store, supervise: Supervise, make_run: MakeRun, eventually: Eventually
) -> None:
    """The first worker that cannot ask the cluster has not started it either."""
    run_id = store.submit(make_run(), "queue").run_id
    partings = supervise(run_id, Cluster(refusal=CannotStart("No cluster is configured.", sure=False)))
    eventually(lambda: partings)
    run = store.get(run_id).run
    assert (run.status, run.message) == (RunStatus.FAILED, "No cluster is configured.")


def test_a_supervisor_that_stumbles_leaves_when_it_is_told_to(
    store: Store,
    supervise: Supervise,
    stop: threading.Event,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the mistake is, SIGTERM ends the worker."""
    run_id = store.submit(make_run(), "queue").run_id

    def stumble(_run_id: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(store, "get", stumble)
    partings = supervise(run_id, Cluster())
    time.sleep(0.2)
    stop.set()
    eventually(lambda: partings)
    assert partings == [Parting.HANDED_BACK]


def test_a_run_that_is_given_up_may_have_succeeded(
    store: Store, supervise: Supervise, make_run: MakeRun, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nextflow ended with 0 before it heard that it should end: that is what is told."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    run_id = store.submit(make_run(), "queue").run_id
    partings = supervise(run_id, Cluster(exit_code=0, stumbles=1))
    eventually(lambda: partings)
    run = store.get(run_id).run
    assert (run.status, run.exit_code) == (RunStatus.SUCCEEDED, 0)
    assert "ZeroDivisionError" in str(run.message)


def test_who_gives_up_leaves_when_it_is_told_to(
    store: Store,
    supervise: Supervise,
    stop: threading.Event,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run does not end quickly; the next worker goes on with ending it, and nobody calls that cancelled."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    run_id = store.submit(make_run(), "queue").run_id
    cluster = Cluster(exit_code=1, stumbles=1, lines=10**6)
    asked: list[Run] = []
    monkeypatch.setattr(cluster, "cancel", asked.append)
    partings = supervise(run_id, cluster)
    eventually(lambda: len(asked) > 3)  # as often as it takes
    stop.set()
    eventually(lambda: partings)
    assert partings == [Parting.HANDED_BACK]
    assert not store.get(run_id).run.status.final
    stop.clear()
    cluster.cancelled, cluster.lines = True, 0
    eventually(lambda: supervise(run_id, cluster))
    eventually(lambda: store.get(run_id).run.status.final)
    run = store.get(run_id).run
    assert run.status is RunStatus.FAILED
    assert "stopped it: ZeroDivisionError" in str(run.message)


def test_a_run_that_cannot_be_stopped_keeps_the_slot(
    store: Store, supervise: Supervise, make_run: MakeRun, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever cannot be done with it: while it works, no other one begins; once it does not, it has failed."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    monkeypatch.setattr(runner, "_STUMBLED_SECONDS", 0.05)
    run_id = store.submit(make_run(), "queue").run_id
    cluster = Cluster(stumbles=10**6)
    works = {run_id: "a process"}
    monkeypatch.setattr(cluster, "what_works", works.copy)
    partings = supervise(run_id, cluster)
    eventually(lambda: cluster.stumbles < 10**6 - 5)
    assert store.active_id() == run_id
    assert not store.get(run_id).run.status.final
    monkeypatch.setattr(cluster, "what_works", dict)
    eventually(lambda: partings)
    run = store.get(run_id).run
    assert (run.status, run.exit_code) == (RunStatus.FAILED, None)


def test_what_is_given_up_before_it_began_does_not_begin(
    store: Store, supervise: Supervise, make_run: MakeRun, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster hears of the cancel before it is asked to follow, which would start it."""
    monkeypatch.setattr(runner, "_PATIENCE", 1)
    run_id = store.submit(make_run(), "queue").run_id
    cluster = Cluster(exit_code=1, stumbles=1)
    follow = cluster.follow
    asked: list[bool] = []

    def note(run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        asked.append(cluster.cancelled)
        yield from follow(run, place)

    monkeypatch.setattr(cluster, "follow", note)
    partings = supervise(run_id, cluster)
    eventually(lambda: partings)
    assert asked == [False, True]
