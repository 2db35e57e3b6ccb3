"""Follows the log of one container until it has ended and all of it is read, however often the stream is cut."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.errors import ClusterAway, ClusterRefused
from worker.cluster import Record
from worker.kube.api import Api, Stream
from worker.kube.tail import Line, LineSplitter, Tail

# A quiet log is no dead one; the connection's own probes find out first.
_READ_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_ALIGN_SECONDS = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is."""

    pod: str
    container: str

    @property
    def key(self) -> str:
        """What its place is kept under."""
        return f"{self.pod}/{self.container}"

    @classmethod
    def of(cls, key: str) -> "Source":
        """The one of that key."""
        pod, _, container = key.partition("/")
        return cls(pod, container)


class Gap(StrEnum):
    """What is known of lines before those that are read, in words."""

    LOST = "are missing: its log was rotated before they were read"
    LATE = "may be missing: its log begins long after its container did, and may have been rotated before"


@dataclass(frozen=True, slots=True)
class Said:
    """New lines of a log, as records and as they are, and the place after them.

    `gap` if some before them are missing, or may be. `last`: nothing more of it comes.
    """

    source: Source
    records: Sequence[Record]
    cursor: dict[str, Any]
    gap: Gap | None = None
    last: bool = False
    lines: Sequence[Line] = ()


class Follower:
    """One container's log. `say` takes each piece in order, in the follower's thread, and may block.

    `whole` if it was read to its end before; `begun` is when the container began (RFC 3339). `short` is true once lines
    at its end are gone with the pod, or may be.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        source: Source,
        cursor: dict[str, Any] | None,
        say: Callable[[Said], None],
        *,
        whole: bool = False,
        begun: str | None = None,
    ) -> None:
        self.source = source
        self.short = False
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods/{source.pod}/log"
        self._tail = Tail(cursor, begun)
        self._say = say
        self._ended = threading.Event()
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._stream: Stream | None = None
        self._rest = b""
        self._size = -1
        self._whole = whole
        self._heard = False
        self._silent = False
        self._heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"log {source.key}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def container_ended(self) -> None:
        """The container writes no more: the next whole reading is the last."""
        self._ended.set()

    @property
    def done(self) -> bool:
        """Whether all is read that can be."""
        return self._done.is_set()

    @property
    def cursor(self) -> dict[str, Any]:
        """Where reading has come to, once it is done."""
        return self._tail.cursor

    def mind(self) -> None:
        """Cut a resumed stream that is silent before the old place was found in it. To be called now and then."""
        if not self._tail.aligned and time.monotonic() - self._heard_at > _ALIGN_SECONDS and self._stream:
            self._silent = True
            self._stream.cut()

    def stop(self) -> None:
        """End; returns at once."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.cut()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            last = self._ended.is_set()
            self._heard = False
            try:
                self._read(last=last)
                heard = self._heard
                if last and not heard and self._whole:
                    break
                if last and heard:  # a stream may also end because the node's kubelet did, anywhere in what is left
                    continue
            except ClusterRefused as error:
                # Nothing is left to read, or there never was anything. A kubelet that starts says so too.
                if last and error.status in (400, 404):
                    self.short = not self._whole
                    break
                _log.info("%s", error, extra={"action": "log.refused"})
            except ClusterAway as error:
                self._whole = False
                if not self._stopping.is_set():
                    _log.info("%s", error, extra={"action": "log.cut"})
            except Exception:  # a thread that ends unseen would leave a log unread for ever
                _log.exception("The follower stumbled.", extra={"action": "log.stumbled"})
            if self._heard:  # one that gives lines and breaks again and again is no dead one
                pause = _FIRST_PAUSE
            # Most logs end because their container has; the news of that comes a little later.
            (self._stopping if last else self._ended).wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        if not self._stopping.is_set():
            if not self.short:
                self._say(Said(self.source, [], self.cursor, last=True))
            self._done.set()

    def _read(self, *, last: bool) -> None:
        """Read until the stream ends, and note whether it gave anything new. Raises what `Api.stream` does."""
        query = {"container": self.source.container, "follow": "true", "timestamps": "true"}
        if self._tail.since:
            query["sinceTime"] = self._tail.since
        self._tail.resume()
        self._heard_at = time.monotonic()
        stream = self._api.stream(self._path, query, read_seconds=_READ_SECONDS)
        self._heard_at = time.monotonic()
        self._stream = stream
        if self._stopping.is_set():
            stream.cut()
        splitter = LineSplitter()
        size, again = 0, False
        try:
            for data in stream:
                self._heard_at = time.monotonic()
                size += len(data)
                self._heard |= self._take(list(splitter.feed(data)))
            # What ends in a line or before the old place has broken off; unless it does so again, at the same byte.
            again = (size, splitter.rest) == (self._size, self._rest)
            self._whole = again or (self._tail.aligned and not splitter.rest)
            self._size, self._rest = size, splitter.rest
            if last and again:
                self._heard |= self._take(list(splitter.end()))
        finally:
            # A reading that broke off before the old place says nothing: one that ends there again does, or one that
            # is silent there.
            if not self._stopping.is_set() and (again or self._silent):
                self._heard |= self._settle()
            self._silent = False

    def _take(self, lines: Sequence[Line]) -> bool:
        new = [known for line in lines for known in self._tail.take(line)]
        self._tell(new, gap=Gap.LATE if self._tail.begins_late() else None)
        return (self._tail.lost and self._settle()) or bool(new)

    def _settle(self) -> bool:
        later = self._tail.settle()
        self._tell(later, gap=Gap.LOST)
        return bool(later)

    def _tell(self, lines: Sequence[Line], gap: Gap | None = None) -> None:
        if lines:
            source = self.source
            records = [
                # The API server gives both streams of a container as one.
                Record(line.timestamp, "all", line.text.decode(errors="replace"), source.pod, source.container)
                for line in lines
            ]
            self._say(Said(source, records, self._tail.cursor, gap, lines=lines))
