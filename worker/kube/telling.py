"""What the threads that carry a run have to say, in order, and how far whoever follows it has heard."""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.cluster import Chunk, Notice, Outcome, Record
from worker.kube.follower import Said
from worker.kube.patience import Stopped

_PULSE_SECONDS = 0.2
_GATHER_SECONDS = 0.02
# A piece may be a single line, or some hundreds of them.
_GATHER_LINES = 1_000
_GATHER_BYTES = 1_048_576
_NOTICES = 500


class Telling:
    """Takes from any thread what is said of a run, and gives it to one that iterates.

    `place` is where the one before had come to: `cursors` of the logs by their keys, and `read`, the keys of those that
    were read to their ends. `stopping` is set once nobody listens any more. `started` is told with each chunk, and
    `outcome` is there at the end.
    """

    def __init__(self, place: Mapping[str, Any]) -> None:
        self.cursors: dict[str, Any] = dict(place.get("logs", {}))
        self.read = frozenset(place.get("read", ()))
        self.stopping = threading.Event()
        self.started = False
        self.outcome: Outcome | None = None
        self._told: dict[str, None] = dict.fromkeys(place.get("told", ()))
        self._queue: queue.Queue[Said | Notice | Outcome | Exception] = queue.Queue(maxsize=256)

    def say(self, item: Said | Notice | Outcome | Exception) -> None:
        """Hand over to whoever iterates; waits while they are busy. Raises Stopped when they have left."""
        while True:
            if self.stopping.is_set():
                raise Stopped
            try:
                self._queue.put(item, timeout=_PULSE_SECONDS)
            except queue.Full:
                continue
            return

    def relay(self, said: Said) -> None:
        """Say a piece of a log, or forget it: whoever follows next reads again what nobody kept."""
        with suppress(Stopped):
            self.say(said)

    def chunks(self) -> Iterator[Chunk]:
        """All that is said, up to the outcome; raises an exception that is said."""
        not_before = 0.0
        while self.outcome is None:
            said = self._gather(not_before)
            if any(isinstance(item, Said) for item in said):
                not_before = time.monotonic() + _GATHER_SECONDS
            yield self._chunk(said)

    def _gather(self, not_before: float) -> list[Said | Notice]:
        """What there is, and what comes up to that moment: lines that follow one another closely share a chunk."""
        found: list[Said | Notice] = []
        lines = size = 0
        try:
            item = self._queue.get(timeout=_PULSE_SECONDS)
            while True:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, Outcome):
                    self.outcome = item
                    return found
                found.append(item)
                if isinstance(item, Said):
                    lines += len(item.records)
                    size += sum(len(record.text) for record in item.records)
                if lines >= _GATHER_LINES or size >= _GATHER_BYTES:
                    return found
                item = self._queue.get(timeout=max(0.0, not_before - time.monotonic()))
        except queue.Empty:
            return found

    def _chunk(self, said: Sequence[Said | Notice]) -> Chunk:
        records: list[Record] = []
        notices: list[Notice] = []
        for item in said:
            if isinstance(item, Said):
                records += item.records
                # New ones each time, for other threads look at them.
                self.cursors = self.cursors | {item.source.key: item.cursor}
                self.read |= {item.source.key} if item.last else set()
                notices += [_gap(item)] if item.gap else []  # as the lines after it, it comes once
            elif self._is_new(item):
                notices.append(item)
        place = {"logs": self.cursors, "told": list(self._told), "read": sorted(self.read)}
        return Chunk(records, place, self.started, notices)

    def _is_new(self, notice: Notice) -> bool:
        # Lines that are lost are never passed over.
        if notice.key in self._told or (len(self._told) >= _NOTICES and not notice.key.startswith("gap/")):
            return False
        self._told[notice.key] = None
        return True


def lost_end(key: str) -> Notice:
    """Lines at the end of that log are not to be had, or may not be."""
    message = f"Lines at the end of {key} may be lost: its pod was gone before they were read."
    return Notice(f"gap/{key}/end", "warning", message, "kubernetes")


def hole(key: str, missing: int, printed: int, log: Path, claim: str) -> Notice:
    """So many lines of those that were printed never came; the claim has them, in `log`."""
    message = (
        f"{missing} of the {printed} lines of {key} are missing, wherever in it: Kubernetes has not given them, as it "
        f"happens when a kubelet turns a log over. The claim {claim} has them, in {log}."
    )
    return Notice(f"gap/{key}/within", "warning", message, "kubernetes")


def _gap(said: Said) -> Notice:
    before = said.records[0].timestamp
    message = f"Lines of {said.source.key} before {before} {said.gap}."
    return Notice(f"gap/{said.source.key}/{before}", "warning", message, "kubernetes")
