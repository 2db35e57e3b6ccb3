"""Puts right what a lost message or a dead worker left: looks at the records and does what they say is due.

`python -m worker.reconciler` does so each second, and each minute looks for what works for no run. It is a
process of its own, because the worker's only slot may be busy for days, and no Celery worker, because what mends a
broken queue must not depend on it.
"""

import logging
import signal
import threading
import time

from shared import settings as settings_module
from shared.broker import Broker, make_celery
from shared.errors import RunNotFound, StoreAway
from shared.lease import Leases
from shared.logs import configure_logging
from shared.redis_client import connect
from shared.store import Store
from worker.strays import StrayWatch

TICK_SECONDS = 1.0
_STRAY_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)


def reconcile(store: Store, leases: Leases, broker: Broker, *, alone_before: str | None) -> str | None:
    """Give a free slot to the next run, poke for an active run that nobody supervises, trim the history.

    Returns the active run if nobody supervises it. It is poked for only if it was alone the last time too, as
    `alone_before` tells: whoever took the slot may be about to. Safe to do at any time, by any number of
    processes. Raises StoreAway.
    """
    active = store.active_id()
    if active is not None and not _exists(store, active):
        _log.error("The active run has no record; its slot is freed.", extra=_extra("slot.freed", active))
        store.free_slot_of(active)
    store.trim_history()
    started = store.begin_next()
    if started is not None:
        broker.poke(started.run_id)
    if active is None or leases.held(active) or broker.waiting():
        return None
    if active == alone_before:
        _log.info("Nobody supervises the active run; a worker is asked to.", extra=_extra("run.poked", active))
        broker.poke(active)
    return active


def _exists(store: Store, run_id: str) -> bool:
    try:
        store.get(run_id)
    except RunNotFound:
        return False
    return True


def _extra(action: str, run_id: str) -> dict[str, str]:
    return {"action": action, "run_id": run_id}


def main() -> None:
    """Reconcile until SIGTERM or SIGINT."""
    settings = settings_module.load_or_exit()
    configure_logging()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    redis = connect(settings.redis_url)
    store, leases, broker = Store(redis, settings), Leases(redis), Broker(make_celery(settings), redis)
    strays, look_at = StrayWatch(store, broker), time.monotonic() + _STRAY_SECONDS
    alone: str | None = None
    while not stop.wait(TICK_SECONDS):
        try:
            alone = reconcile(store, leases, broker, alone_before=alone)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _STRAY_SECONDS
                strays.look(_ANSWER_SECONDS)
        except StoreAway as error:
            _log.warning("%s", error, extra={"action": "store.away"})
        except Exception:  # one mistake must not end what puts mistakes right
            _log.exception("The reconciler stumbled.", extra={"action": "reconciler.stumbled"})


if __name__ == "__main__":
    main()
