"""Finds what works for a run that is not active: a Job that somebody made by hand, processes that a lost run left."""

import logging
from collections.abc import Mapping

from shared.broker import Broker
from shared.store import Store

_log = logging.getLogger(__name__)


class StrayWatch:
    """Looks now and then, and has the service say what it found; it ends nothing."""

    def __init__(self, store: Store, broker: Broker) -> None:
        self._store = store
        self._broker = broker
        self._seen: Mapping[str, str] = {}
        self._told: set[str] = set()

    def look(self, seconds: float) -> None:
        """Ask a worker what works where runs do, and report what did so the last time too and belongs to no active run.

        A run that ends or begins just now is thereby no stray. Without an answer in that time, nothing changes.
        Raises StoreAway.
        """
        working = self._broker.ask_what_works(seconds)
        if working is None:
            return
        active = self._store.active_id()
        strays = {run_id: what for run_id, what in working.items() if run_id != active}
        lasting = {run_id: what for run_id, what in strays.items() if run_id in self._seen}
        self._seen = strays
        self._store.report_strays([f"{what}, of run {run_id}" for run_id, what in sorted(lasting.items())])
        for run_id in lasting.keys() - self._told:
            message = "%s still works for run %s, which is not active. End it by hand if nobody needs it."
            _log.warning(message, lasting[run_id], run_id, extra={"action": "stray.found", "run_id": run_id})
        self._told &= lasting.keys()
        self._told |= lasting.keys()
