"""The reconciler: what a lost message or a dead worker left is put right, and nothing else is touched."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from ends import finish

from shared import keys
from shared.broker import RUN_QUEUE, Broker, make_celery
from shared.lease import Leases
from shared.redis_client import Client
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store
from worker.reconciler import reconcile

MakeRun = Callable[..., Run]
Look = Callable[[str | None], str | None]


@pytest.fixture
def broker(redis: Client, settings: Settings) -> Broker:
    return Broker(make_celery(settings), redis)


@pytest.fixture
def look(store: Store, leases: Leases, broker: Broker) -> Look:
    """One look of the reconciler, which remembers who was alone before."""
    return lambda before: reconcile(store, leases, broker, alone_before=before)


@pytest.fixture
def active(store: Store, make_run: MakeRun) -> str:
    """An active run that nobody was told of."""
    return store.submit(make_run(), "queue").run_id


def test_a_run_that_is_alone_once_is_only_remembered(look: Look, broker: Broker, active: str) -> None:
    """Whoever took the slot may be about to poke."""
    assert look(None) == active
    assert broker.waiting() == 0


def test_a_run_that_is_alone_twice_is_poked_for(look: Look, broker: Broker, redis: Client, active: str) -> None:
    """The second time, a worker is asked to look at it."""
    assert look(look(None)) == active
    assert broker.waiting() == 1
    (message,) = redis.lrange(keys.CELERY_PREFIX + RUN_QUEUE, 0, -1)
    assert active.encode() in message


def test_a_waiting_poke_is_enough(look: Look, broker: Broker, active: str) -> None:
    """While no worker takes pokes, they do not pile up."""
    broker.poke(active)
    alone = None
    for _ in range(5):
        alone = look(alone)
    assert alone is None
    assert broker.waiting() == 1


def test_a_supervised_run_is_left_alone(look: Look, leases: Leases, broker: Broker, active: str) -> None:
    """A run whose lease is held needs nothing."""
    leases.acquire(active)
    assert look(active) is None
    assert broker.waiting() == 0


def test_another_run_that_is_alone_is_not_poked_for_at_once(look: Look, broker: Broker, active: str) -> None:
    """Alone twice means the same run twice."""
    assert look("run-of-before") == active
    assert broker.waiting() == 0


def test_a_free_slot_goes_to_the_next_run(
    look: Look, store: Store, broker: Broker, active: str, make_run: MakeRun
) -> None:
    """When a worker died between two runs, the next one begins all the same."""
    store.submit(waiting := make_run(), "queue")
    finish(store, active, RunStatus.SUCCEEDED)
    look(None)
    assert store.active_id() == waiting.run_id
    assert store.get(waiting.run_id).run.status is RunStatus.STARTING
    assert broker.waiting() == 1


def test_a_slot_whose_run_is_gone_is_freed(
    look: Look, store: Store, redis: Client, active: str, make_run: MakeRun
) -> None:
    """An active run without a record, as after a loss of data, does not block the service."""
    store.submit(waiting := make_run(), "queue")
    redis.delete(keys.run(active))
    look(None)
    assert store.active_id() == waiting.run_id


def test_an_idle_service_stays_idle(look: Look, store: Store, broker: Broker) -> None:
    """With nothing to do, nothing is done."""
    assert look(None) is None
    assert (store.active_id(), broker.waiting()) == (None, 0)


def test_the_history_is_trimmed(
    redis: Client, settings: Settings, leases: Leases, broker: Broker, make_run: MakeRun
) -> None:
    """Each look drops what is beyond the limit."""
    store = Store(redis, replace(settings, run_history_limit=1))
    for _ in range(3):
        run = make_run()
        store.submit(run, "queue")
        finish(store, run.run_id, RunStatus.SUCCEEDED)
    reconcile(store, leases, broker, alone_before=None)
    assert len(store.history(10)) == 1
