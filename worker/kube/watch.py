"""A view of some objects of the API server, kept true by one list and a watch that goes on from it."""

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

from shared.errors import ClusterAway, ClusterRefused
from worker.kube.api import Api, Json, Stream

# The server ends a watch by itself before the reader would think it dead.
_WATCH_SECONDS = 300
_READ_SECONDS = _WATCH_SECONDS + 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_log = logging.getLogger(__name__)


class _Expired(Exception):
    """The watch cannot go on from where it was: all must be listed again."""


class Watch:
    """Tells of every object that matches `query`, as it is and as it changes, until it is stopped.

    `changed(object, gone)` is called for each; an object that went unseen is told as gone after the next list.
    `listed()` is called when all that is there now has been told. Both are called in the watch's own thread.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        query: dict[str, str],
        changed: Callable[[Json, bool], None],
        listed: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._path = path
        self._query = query
        self._changed = changed
        self._listed = listed
        self._known: dict[str, Json] = {}
        self._version = ""
        self._lists = 0
        self._lost: set[str] = set()
        self._following = False
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    @property
    def missed(self) -> bool:
        """Whether objects may have come and gone unseen since the first list."""
        return self._lists != 1 or not self._following

    def saw_to_its_end(self, uid: str) -> bool:
        """Whether all that became of an object that was told has been told."""
        return self._following and uid not in self._lost

    def stop(self) -> None:
        """End the watch; returns at once."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.cut()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                if not self._version:
                    self._list()
                if self._follow():
                    pause = _FIRST_PAUSE
                    continue
            except _Expired:
                self._version = ""
            except (ClusterAway, ClusterRefused) as error:
                if not self._stopping.is_set():
                    _log.info("%s", error, extra={"action": "watch.away"})
            except Exception:  # a thread that ends unseen would leave a run without eyes
                _log.exception("The watch stumbled.", extra={"action": "watch.stumbled"})
                self._version = ""
            self._stopping.wait(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _list(self) -> None:
        found = self._api.get(self._path, self._query)
        self._lists += 1
        here = {item["metadata"]["uid"]: item for item in found.get("items") or ()}
        for uid in self._known.keys() - here.keys():
            self._lost.add(uid)
            self._changed(self._known.pop(uid), True)
        for uid, item in here.items():
            before = self._known.get(uid)
            if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._tell(item, gone=False)
        self._version = found["metadata"]["resourceVersion"]
        self._listed()

    def _follow(self) -> bool:
        """Watch until the stream ends; returns whether anything came."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version}
        query |= {**self._query, "timeoutSeconds": str(_WATCH_SECONDS)}
        try:
            stream = self._api.stream(self._path, query, read_seconds=_READ_SECONDS)
        except ClusterRefused as error:
            if error.status == 410:
                raise _Expired from error
            raise
        self._stream = stream
        if self._stopping.is_set():
            stream.cut()
        heard = False
        self._following = True
        try:
            for said in _parsed(stream):
                heard = True
                self._take(said)
        finally:
            self._following = False
        return heard

    def _take(self, said: dict[str, Any]) -> None:
        kind, item = said["type"], said["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _Expired
            raise ClusterAway(f"The watch ended: {item.get('message')}.")
        if kind != "BOOKMARK":
            self._tell(item, gone=kind == "DELETED")
        self._version = item["metadata"]["resourceVersion"]

    def _tell(self, item: Json, *, gone: bool) -> None:
        uid = item["metadata"]["uid"]
        if gone:
            self._known.pop(uid, None)
        else:
            self._known[uid] = item
        self._changed(item, gone)


def _parsed(stream: Stream) -> Iterator[dict[str, Any]]:
    rest = b""
    for block in stream:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
