"""Asks the API server again and again, for as long as it is away and somebody still wants the answer."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from shared.errors import ClusterAway, ClusterRefused
from worker.cluster import Notice
from worker.kube.api import Api

T = TypeVar("T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_AWAY_SECONDS = 5.0
# An API server that has just started refuses all until it knows who may do what.
_FORBIDDEN_SECONDS = 15.0
_log = logging.getLogger(__name__)


class Stopped(Exception):
    """Nobody follows the run here any more; it goes on."""


class Patience:
    """For one run. `tell` takes what people should know; `begun` is whether the run is known to have begun."""

    def __init__(self, api: Api, run_id: str, stopping: threading.Event, tell: Callable[[Notice], None]) -> None:
        self._api = api
        self._run_id = run_id
        self._stopping = stopping
        self._tell = tell
        self._since = time.monotonic()
        self.begun = False

    def insist(self, call: Callable[[], T]) -> T:
        """What a call gives, repeated while the API server is away. Raises what else it raises, and Stopped."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return call()
            except (ClusterAway, ClusterRefused) as error:
                if isinstance(error, ClusterRefused) and not self._may_pass(error):
                    raise
                _log.warning("%s", error, extra={"action": "cluster.away", "run_id": self._run_id})
                self.tell_away()
                self.pause(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def tell_away(self) -> None:
        """Say that the API server has been away for a while, once each time."""
        away = self._api.away
        if away is not None and time.monotonic() - away.since > _AWAY_SECONDS:
            message = f"{away.error} The run goes on; the service tries again."
            self._tell(Notice(f"away/{away.since:.0f}", "warning", message, "kubernetes"))

    def pause(self, seconds: float) -> None:
        """Wait. Raises Stopped."""
        if self._stopping.wait(seconds):
            raise Stopped

    def _may_pass(self, error: ClusterRefused) -> bool:
        """Whether to ask again: what is forbidden may be allowed in a moment, and no run ends by it that has begun."""
        return error.status == 403 and (self.begun or time.monotonic() - self._since < _FORBIDDEN_SECONDS)
