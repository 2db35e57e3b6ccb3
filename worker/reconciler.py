"""Puts right what a lost message or a dead worker left: looks at the records and does what they say is due."""

import logging

from shared.broker import Broker
from shared.errors import RunNotFound
from shared.lease import Leases
from shared.store import Store

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
