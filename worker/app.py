"""The Celery app of the worker, with its one task: supervise a run."""

import logging
import os
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import Task
from celery.exceptions import Ignore
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutting_down
from celery.worker.control import inspect_command

from shared import garbage
from shared import settings as settings_module
from shared.broker import CHECK_COMMAND, RUN_TASK, WORKS_COMMAND, Broker, make_celery
from shared.errors import CannotStart, StoreAway
from shared.feed import Feed
from shared.lease import Leases
from shared.logs import configure_logging
from shared.redis_client import connect
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store
from worker.cluster import Cluster
from worker.local_cluster import LocalCluster
from worker.reconciler import reconcile
from worker.runner import Parting, Supervisor, Tools

_log = logging.getLogger(__name__)
# A byte that parent and child share. An Event has a lock, which a child that is killed at the wrong moment keeps.
_stopping = RawValue("b", 0)

settings = settings_module.load_or_exit()
app = make_celery(settings)


def make_cluster(settings: Settings) -> Cluster:
    """What executes runs, as RUNNER says."""
    if settings.runner == "local":
        return LocalCluster(settings)
    # The Kubernetes client takes 20 MiB and time, which a worker without a cluster need not spend.
    from worker.kube.cluster import KubernetesCluster

    return KubernetesCluster(settings)


# Asked in the worker's parent process, which supervises nothing.
_checked = make_cluster(settings)


class RunFailed(Exception):
    """The run failed; the Celery task of it fails with the same words."""


@app.task(name=RUN_TASK, bind=True, throws=(RunFailed,))
def run(task: "Task[..., Any]", run_id: str) -> str:
    """Supervise a run to its end. The Celery task's own end tells the run's."""
    redis = connect(settings.redis_url)
    store = Store(redis, settings)
    tools = Tools(store, Feed(redis, settings), Leases(redis), make_cluster(settings), _must_stop)
    broker = Broker(app, redis)
    supervisor = Supervisor(run_id, tools)
    parting = supervisor.supervise()
    if parting is Parting.HANDED_BACK:
        _hand_back(task, run_id, broker)
    if supervisor.ended is None:
        raise Ignore
    begin_next(store, broker)
    return _tell_end(task, supervisor.ended)


class Forked:
    """What a child of the worker knows of its birth."""

    parent_pid: int = os.getppid()


@inspect_command(name=CHECK_COMMAND)
def runner_check(_state: Any) -> dict[str, Any]:
    """Tell whoever asks for the service's health whether this worker could execute a run."""
    try:
        return {"ok": True, "detail": _checked.check()}
    except CannotStart as error:
        return {"ok": False, "detail": str(error)}


@inspect_command(name=WORKS_COMMAND)
def what_works(_state: Any) -> dict[str, Any]:
    """Tell the reconciler what works where this worker's runs do, if that can be told now."""
    try:
        return {"working": dict(_checked.what_works())}
    except CannotStart as error:
        return {"detail": str(error)}


def begin_next(store: Store, broker: Broker) -> None:
    """Start the run that waits longest; the reconciler does it a little later if Redis goes away just now."""
    try:
        following = store.begin_next()
        if following is not None:
            broker.poke(following.run_id)
    except StoreAway as error:
        _log.warning("%s", error, extra={"action": "store.away"})


def _hand_back(task: "Task[..., Any]", run_id: str, broker: Broker) -> None:
    task.send_event("task-retried", exception="This worker stops; another takes the run over.", traceback="")
    try:
        broker.poke(run_id)
    except StoreAway as error:
        _log.warning("%s The reconciler pokes later.", error, extra={"action": "run.handed_back", "run_id": run_id})


def _tell_end(task: "Task[..., Any]", ended: Run) -> str:
    if ended.status is RunStatus.FAILED:
        raise RunFailed(ended.message or "failed")
    if ended.status is RunStatus.CANCELLED:
        task.send_event("task-revoked", terminated=True, signum=None, expired=False)
        raise Ignore
    return ended.message or ended.status.value


def _must_stop() -> bool:
    """The worker was told to stop, or its parent is dead and with it whoever could tell it."""
    return bool(_stopping.value) or os.getppid() != Forked.parent_pid


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logging()


@worker_process_init.connect
def _forked(**_: Any) -> None:
    configure_logging()
    Forked.parent_pid = os.getppid()
    garbage.look_seldom()


@worker_shutting_down.connect
def _on_shutdown(**_: Any) -> None:
    _stopping.value = 1


@worker_ready.connect
def _recover(**_: Any) -> None:
    """A worker that comes back takes up at once what another left, and need not wait for the reconciler."""
    redis = connect(settings.redis_url)
    try:
        store, leases = Store(redis, settings), Leases(redis)
        reconcile(store, leases, Broker(app, redis), alone_before=store.active_id())
    except StoreAway as error:
        _log.warning("%s", error, extra={"action": "store.away"})
    finally:
        redis.close()
