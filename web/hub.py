"""The hub of a web process: one Redis subscription, whatever the number of viewers.

A viewer is either *live*, when the hub writes each event to it as it comes, or *catching up*, when a thread of
its own reads kept events after the last one it has. It begins by catching up; a live one that reads too slowly
catches up again. So nobody waits for a viewer, and no event is missed or seen twice.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress, groupby

from redis.client import PubSub

from shared import events, keys, times
from shared.errors import StoreAway
from shared.events import EventType
from shared.feed import Feed, parse_message
from shared.redis_client import Client, store_errors
from shared.store import Store, Which
from web.connection import FAILED
from web.outbox import Outbox, Stalled, offer_at_once, text_frame
from web.presence import BEAT_SECONDS, Presence
from web.status import queue

KEEP_ALIVE_SECONDS = 25.0
_RESTARTS = "The server restarts; connect again in a second."
TOO_SLOW = "You are too far behind. Connect again with since=<last id>."
_ANEW = "Connect again with since=0."
_LOST = f"Redis has lost its newest events. {_ANEW}"
_GONE = "This run is no longer kept."
# How large events are is not known at first.
_FIRST_PAGE, _PAGE, _PAGE_BYTES = 25, 50, 1_048_576
_GATHER_MOST = 200
# No write is larger, but for a single frame that is.
_PIECE_BYTES = 131_072
# After a delivery the next one waits some times as long as that worked: what comes meanwhile shares a write. With few
# viewers that is no time at all, with thousands it is what keeps the process free for everything else. Its own work,
# not its time: or a line would wait longer the more others do on the machine.
_GATHER_SHARE = 3.0
_GATHER_SECONDS = 0.05
# How many sockets are written to before others in this process may go on.
_TURN = 200
_CATCH_UP_BYTES = 524_288
_PULSE_SECONDS = 0.5
_BREATH_SECONDS = 0.01
# As many may begin and end in what a Redis loses.
_RUNS_LEFT = 10
_REREAD_SECONDS = 1.0
_STATUS = b'"type":"status"'
_COMPLETE = b'"type":"complete"'
# So near to its beginning a frame says of what type it is.
_HEAD = 60
_log = logging.getLogger(__name__)

Message = tuple[str, int, bytes]
Page = list[tuple[int, bytes]]


@dataclass(eq=False, slots=True)
class Viewer:
    """One socket and where it stands: the run it sees, and the last event of it that was written.

    `follows` is true for one that goes from run to run. `close` ends it with a code and a reason, `ping` asks whether
    its client is still there. No event after its cursor may be missing; but until it is live or has been sent one,
    `tell_anew` tells it how things stand, with the first event that is kept. `greeted` is the last event that there was
    when it was told so at first; its cursor may be beyond that. `last` is the frame at its cursor, and empty while that
    is not known: Redis may come back with another one there. So many events at the `most` are a page for it.
    """

    outbox: Outbox
    close: Callable[[int, str], None]
    ping: Callable[[], None]
    run_id: str | None
    cursor: int
    follows: bool
    tell_anew: Callable[[int], None] | None = None
    greeted: int = 0
    last: bytes = b""
    most: int = _FIRST_PAGE

    @property
    def seen(self) -> int:
        """The last event that was there as far as it knows: if Redis has fewer, it has lost some."""
        return self.cursor if self.tell_anew is None else min(self.cursor, self.greeted)

    def lead_on(self, run_id: str | None) -> None:
        """To the beginning of that run."""
        self.run_id, self.cursor, self.greeted, self.tell_anew, self.last = run_id, 0, 0, None, b""


@dataclass(eq=False, slots=True)
class Channel:
    """The live viewers of one run, and the last event that was written to them.

    `last` is its frame, and empty while that is not known.
    """

    run_id: str | None
    cursor: int
    viewers: set[Viewer] = field(default_factory=set)
    last: bytes = b""


class Hub:
    """Relays events from Redis to viewers. Its thread survives Redis and re-reads what it may have missed."""

    def __init__(self, redis: Client, store: Store, feed: Feed, presence: Presence) -> None:
        self._redis = redis
        self._store = store
        self._feed = feed
        self.presence = presence
        self._lock = threading.Lock()
        self._channels: dict[str | None, Channel] = {}
        self._viewers: set[Viewer] = set()
        self._switching = threading.Lock()
        # One thread at a time: what another has begun to write is not there yet for who comes last.
        self._delivering = threading.RLock()
        self.current: str | None = None
        self._left: deque[str | None] = deque(maxlen=_RUNS_LEFT)
        self._queue_changed = False
        self._told_viewers = 0
        self._draining: Callable[[], bool] = lambda: False
        self._deliver_at = 0.0
        self._waits = self._relays = self._all_due = False

    @property
    def finished(self) -> bool:
        """Whether it relays no more, and every viewer has been closed."""
        return not (self._relays or self._viewers)

    def start(self, draining: Callable[[], bool], *, when_needed: bool = False) -> None:
        """Begin to relay, or wait until there is a viewer; once `draining` is true every viewer is closed with 1012."""
        self._draining = draining
        self._waits = when_needed
        if not when_needed:
            self._begin()

    def _begin(self) -> None:
        self._waits, self._relays = False, True
        threading.Thread(target=self._run, name="hub", daemon=True).start()

    def add(self, viewer: Viewer) -> None:
        """Serve a viewer from its cursor on. Returns once it is live.

        Raises Stalled when it does not read or cannot go on, RunNotFound, and OSError when it is closed.
        """
        with self._lock:
            self._viewers.add(viewer)
            if self._waits:
                self._begin()
        if self._draining():  # those who were there have been told already
            viewer.close(1012, _RESTARTS)
            return
        self._catch_up(viewer)

    def notice(self) -> None:
        """Learn which run is active, or was last, and lead those who follow to it. Raises StoreAway."""
        with self._switching:
            latest = self._store.latest_id()
            if latest is None or latest == self.current:
                return
            before, is_past = self.current, latest in self._left
            if is_past:
                self._lose_followers()
            try:
                self._switch(latest)
            finally:
                if self.current == latest and not is_past:
                    self._left.append(before)
                elif self.current == latest:
                    while self._left.pop() != latest:  # those after it are no more
                        pass

    def _lose_followers(self) -> None:
        """Redis has lost a whole run, and with it what those who follow have seen of it."""
        with self._lock:
            followers = [viewer for viewer in self._viewers if viewer.follows]
            for viewer in followers:
                self._leave_channel(viewer)
        for viewer in followers:
            viewer.close(1013, _LOST)

    def remove(self, viewer: Viewer) -> None:
        """Forget a viewer; again: no change."""
        with self._lock:
            self._viewers.discard(viewer)
            self._leave_channel(viewer)

    def _leave_channel(self, viewer: Viewer) -> None:
        channel = self._channels.get(viewer.run_id)
        if channel is not None:
            channel.viewers.discard(viewer)
            if not channel.viewers:
                del self._channels[viewer.run_id]

    # Catching up: in the viewer's own thread.

    def _catch_up(self, viewer: Viewer) -> None:
        while viewer in self._viewers:
            try:
                current = self.current  # seen before reading: a run that is left has told all by now
                last_id, last = self._write_kept(viewer)
                if viewer not in self._viewers:
                    return
                if not viewer.outbox.idle:  # it reads slowly, and Redis may be another by the time that it has read
                    viewer.outbox.flush()
                    continue
                if self._join(viewer, last_id, last, current):
                    return
                time.sleep(_BREATH_SECONDS)
            except StoreAway:
                time.sleep(_PULSE_SECONDS)

    def _write_kept(self, viewer: Viewer) -> tuple[int, bytes]:
        """Write all that is kept after the viewer's cursor; returns the last event there is, its id and its frame.

        Raises Stalled when it cannot go on.
        """
        if viewer.run_id is None:
            return 0, b""
        last_id, page = self._look(viewer, viewer.run_id)
        told = 0
        while page or viewer.cursor < last_id:
            if not page or page[0][0] > viewer.cursor + 1:  # what it should have next is no longer kept
                if not page or viewer.tell_anew is None:
                    raise Stalled
                if page[0][0] != told:
                    viewer.outbox.flush()  # or it might not be taken
                    told = page[0][0]
                    viewer.tell_anew(told)
            written = self._write_page(viewer, page)
            last_id = max(last_id, viewer.cursor)
            if viewer.cursor == last_id and written:
                return last_id, viewer.last
            viewer.most = max(1, min(_PAGE, _PAGE_BYTES // max(len(frame) for _, frame in page)))
            if not written:  # thousands may read slowly: what was read for them must not wait in memory
                page = []
                viewer.outbox.flush()
            last_id, page = self._look_on(viewer, viewer.run_id, last_id)
        return last_id, viewer.last if viewer.cursor == last_id else b""

    def _look(self, viewer: Viewer, run_id: str) -> tuple[int, Page]:
        """The last event there is, and a page of those after the viewer's cursor.

        Raises Stalled when it cannot go on.
        """
        last_id, found, page = self._feed.read_on(run_id, viewer.cursor, viewer.most)
        if not last_id and _tells(_COMPLETE, viewer.last):  # it has all of a run whose time is over
            return viewer.cursor, []
        if not last_id and (viewer.cursor > 0 or not viewer.follows):  # not for one that is led to it just now
            viewer.close(1013, f"{_GONE} {_ANEW}" if viewer.follows else _GONE)
            raise Stalled
        there = viewer.last if found is None else text_frame(found)
        if last_id < viewer.seen or (viewer.last and there != viewer.last):
            viewer.close(1013, _LOST)
            raise Stalled
        viewer.last = there
        return last_id, page

    def _look_on(self, viewer: Viewer, run_id: str, last_id: int) -> tuple[int, Page]:
        """The same for one that has not all up to that event yet, by one command where its last event is in place."""
        page = self._feed.read(run_id, viewer.cursor - 1, viewer.most + 1) if viewer.cursor else []
        in_place = page and page[0][0] == viewer.cursor and text_frame(page[0][1]) == viewer.last
        if in_place and (len(page) > 1 or viewer.cursor == last_id):
            return last_id, page[1:]
        return self._look(viewer, run_id)

    def _write_page(self, viewer: Viewer, page: list[tuple[int, bytes]]) -> bool:
        """Whether all of it could be written; the rest must be written when the client has read what is pending."""
        for piece in _pieces((number, text_frame(frame)) for number, frame in page):
            if not viewer.outbox.offer(b"".join(frame for _, frame in piece), most=_CATCH_UP_BYTES):
                return False
            viewer.tell_anew, (viewer.cursor, viewer.last) = None, piece[-1]
        return True

    def _join(self, viewer: Viewer, last_id: int, last: bytes, current: str | None) -> bool:
        """Make a viewer live if it has all that the live ones of its run have; it has all up to that event."""
        with self._lock:
            if viewer not in self._viewers:
                return True
            if viewer.follows and viewer.run_id != self.current:
                if current == self.current:
                    viewer.lead_on(self.current)
                return False
            channel = self._channels.get(viewer.run_id)
            if channel is None:
                channel = self._channels[viewer.run_id] = Channel(viewer.run_id, last_id, last=last)
            if not last_id:  # there is nothing of that run any more, and whoever sees it waits for the next one
                viewer.cursor, viewer.last = channel.cursor, b""
            if viewer.cursor < channel.cursor:
                return False
            if viewer.cursor == channel.cursor:
                if viewer.last and channel.last and viewer.last != channel.last:  # one of them is of a Redis that lost
                    return False
                viewer.last = channel.last or viewer.last  # one frame for all
            channel.viewers.add(viewer)
            viewer.tell_anew = None
            return True

    # Live: in the hub's thread.

    def _run(self) -> None:
        keep_alive_at = time.monotonic()
        while not self._draining():
            try:
                with store_errors(), self._redis.pubsub() as channel:
                    channel.subscribe(keys.CHANNEL)
                    beat_at = float("-inf")
                    while not self._draining():
                        now = time.monotonic()
                        if now - beat_at >= BEAT_SECONDS:
                            beat_at = now
                            self.presence.beat()
                            if self.presence.total != self._told_viewers:
                                self._keep_alive()
                        self._listen(channel)
                        if now - keep_alive_at >= KEEP_ALIVE_SECONDS:
                            keep_alive_at = now
                            self._all_due = True
                            self._keep_alive()
                            self._ping()
            except StoreAway as error:
                _log.warning("%s", error, extra={"action": "store.away"})
                time.sleep(_PULSE_SECONDS)
            except Exception:  # the hub is the heart of the process: whatever it is, tell it and go on
                _log.exception("The hub stumbled.", extra={"action": "hub.stumbled"})
                time.sleep(_PULSE_SECONDS)
        self._close_all(1012, _RESTARTS)
        self._relays = False
        with suppress(StoreAway):
            self.presence.part()

    def _listen(self, channel: PubSub) -> None:
        """Relay messages for about a second, or until the subscription was renewed, then re-read."""
        until = time.monotonic() + _REREAD_SECONDS
        while (left := until - time.monotonic()) > 0 and not (self._draining() or self._all_due):
            first = self._next(channel, min(left, _PULSE_SECONDS))
            if first is not None:
                self._relay(self._gather(channel, first))
        self._reread()
        self._all_due = False
        if self._queue_changed:
            self._keep_alive()

    def _gather(self, channel: PubSub, first: Message) -> list[Message]:
        """A message and those that are there when the next delivery may begin."""
        found = [first]
        while len(found) < _GATHER_MOST:
            message = self._next(channel, max(0.0, self._deliver_at - time.monotonic()))
            if message is None:
                return found
            found.append(message)
        return found

    def _next(self, channel: PubSub, timeout: float) -> Message | None:
        """The next message, if one comes in so many seconds and before the subscription is renewed."""
        message = channel.get_message(timeout=timeout)
        if message is not None and message["type"] == "message":
            return parse_message(message["data"])
        # redis-py subscribes anew by itself when it has to connect anew: Redis may be another than before.
        self._all_due = self._all_due or message is not None
        return None

    def _relay(self, messages: list[Message]) -> None:
        for run_id, of_run in groupby(messages, key=lambda message: message[0]):
            page = [(number, frame) for _, number, frame in of_run]
            self._relay_run(run_id, page)

    def _relay_run(self, run_id: str, page: Page) -> None:
        if run_id != self.current and any(_tells(_STATUS, frame) for _, frame in page):
            self._queue_changed = True
            self.notice()
        channel = self._channels.get(run_id)
        if channel is None:
            return
        page = [(number, frame) for number, frame in page if number > channel.cursor]
        if page and page[-1][0] == channel.cursor + len(page):
            self._deliver(channel, page)
        elif page:
            self._read_on(channel)

    def _reread(self) -> None:
        if not self._viewers:  # whoever comes asks by itself
            return
        with self._lock:  # where each stood before Redis was asked: another thread may deliver meanwhile, see `notice`
            channels = list(self._channels.values())
            stood = {
                run_id: (one, one.cursor, one.last)
                for run_id, one in self._channels.items()
                # After the end of a run nothing comes, and hardly anything can be lost but by a Redis that was away.
                if run_id and (self._all_due or not _tells(_COMPLETE, one.last))
            }
        stand = self._feed.peek([(run_id, cursor) for run_id, (_, cursor, _) in stood.items()])
        for (channel, cursor, last), (last_id, found) in zip(stood.values(), stand, strict=True):
            if (kept := _kept_of(cursor, last, last_id, found)) is not None:
                self._lose(channel, kept)
            elif last_id > channel.cursor:
                self._read_on(channel)
        with self._delivering:  # none is behind only because a delivery has not come to it yet
            for channel in channels:
                with self._lock:
                    behind = [viewer for viewer in channel.viewers if viewer.cursor < channel.cursor]
                self._let_catch_up(behind)
        self.notice()  # at last: who follows is led on from the end of a run as it is now

    def _lose(self, channel: Channel, kept: int) -> None:
        """Redis has lost what came after an event: who has seen that begins anew, also those that are catching up."""
        with self._lock:
            if self._channels.get(channel.run_id) is not channel:  # another thread has seen it too, and was quicker
                return
            seen = [one for one in self._viewers if one.run_id == channel.run_id and one.seen > kept]
        self._let_go(channel, _LOST)
        for viewer in seen:
            viewer.close(1013, _LOST)

    def _read_on(self, channel: Channel) -> None:
        if channel.run_id is None:
            return
        with self._lock:
            cursor, last = channel.cursor, channel.last
        last_id, found, page = self._feed.read_on(channel.run_id, cursor, _PAGE)
        if (kept := _kept_of(cursor, last, last_id, found)) is not None:
            self._lose(channel, kept)
            return
        while page:
            if page[0][0] > channel.cursor + 1:
                self._let_go(channel, TOO_SLOW)
                return
            self._deliver(channel, page)
            if channel.cursor >= last_id:  # what comes later is heard of: whoever waits for this must not wait for ever
                return
            page = self._feed.read(channel.run_id, channel.cursor, _PAGE)

    def _let_go(self, channel: Channel, reason: str) -> None:
        """Close viewers whose next event cannot be told: a new connection tells them how things stand."""
        with self._lock:
            viewers = list(channel.viewers)
            channel.viewers.clear()
            if self._channels.get(channel.run_id) is channel:  # another may have let it go, and there be a new one
                del self._channels[channel.run_id]
        for viewer in viewers:
            viewer.close(1013, reason)

    def _deliver(self, channel: Channel, page: Page) -> None:
        """Write a page to the channel's viewers, each frame once; in turns, so that thousands hold nobody up."""
        with self._delivering:
            took = sum(self._deliver_piece(channel, piece) for piece in _pieces((n, text_frame(f)) for n, f in page))
            if took:
                self._deliver_at = time.monotonic() + min(_GATHER_SECONDS, _GATHER_SHARE * took)

    def _deliver_piece(self, channel: Channel, piece: Page) -> float:
        """Returns the processor time that it took, in seconds."""
        with self._lock:
            # Another thread may have delivered a part of it since it was read: see `notice`.
            frames = [frame for frame in piece if frame[0] > channel.cursor]
            if not frames:
                return 0.0
            # From now on whoever joins has all of this, and whoever was here gets it now.
            before = channel.cursor
            channel.cursor, channel.last = frames[-1]
            viewers = list(channel.viewers)
        took, whole = 0.0, b"".join(frame for _, frame in frames)
        for some in _in_turns(viewers):
            began = time.thread_time()
            self._deliver_to(some, channel, frames, whole, before)
            took += time.thread_time() - began
        return took

    def _deliver_to(self, viewers: Sequence[Viewer], channel: Channel, frames: Page, whole: bytes, before: int) -> None:
        slow: list[Viewer] = []
        last, frame = frames[-1]
        with self._lock:
            level = [viewer for viewer in viewers if viewer.cursor == before and viewer in channel.viewers]
            taken = offer_at_once([viewer.outbox for viewer in level], whole)
            for viewer in compress(level, taken):
                viewer.cursor, viewer.last = last, frame
            if all(taken) and len(taken) == len(viewers):
                return
            for viewer in viewers:
                if viewer.cursor >= last or viewer not in channel.viewers:  # it has it, was ahead, or has left
                    continue
                wanted = whole if viewer.cursor == before else _after(frames, viewer.cursor)
                if viewer.cursor >= before and _offer(viewer, wanted):
                    viewer.cursor, viewer.last = last, frame
                else:  # too much is pending, or a delivery broke off before it came to this one
                    slow.append(viewer)
        self._let_catch_up(slow)

    def _let_catch_up(self, viewers: list[Viewer]) -> None:
        with self._lock:
            # One that is in no channel any more catches up already, or has left.
            mine = [viewer for viewer in viewers if viewer in self._live(viewer.run_id)]
            for viewer in mine:
                self._leave_channel(viewer)
        for viewer in mine:
            self._in_thread(viewer)

    def _live(self, run_id: str | None) -> set[Viewer]:
        channel = self._channels.get(run_id)
        return set() if channel is None else channel.viewers

    def _catch_up_slow(self, viewer: Viewer) -> None:
        try:
            viewer.outbox.flush()
            self._catch_up(viewer)
        except (Stalled, OSError):  # closed already, or it must not go on with a hole
            viewer.close(1013, TOO_SLOW)
        except Exception:  # nor then
            _log.exception("A viewer could not be caught up.", extra={"action": "socket.failed"})
            viewer.close(1011, FAILED)

    def _switch(self, run_id: str) -> None:
        """Lead those who follow from the run before to this one, after the last event of that."""
        with self._delivering:
            before = self._channels.get(self.current)
            if before is not None:
                self._read_on(before)
            with self._lock:
                channel = self._channels.get(self.current)  # another, where the last viewer left meanwhile and one came
                movers = [viewer for viewer in channel.viewers if viewer.follows] if channel else []
                for viewer in movers:
                    self._leave_channel(viewer)
                    # One that a delivery has not come to yet reads on by itself, and follows when it has all.
                    if before is not None and channel is before and viewer.cursor >= before.cursor:
                        viewer.lead_on(run_id)
                self.current = run_id
            led = [viewer for viewer in movers if viewer.run_id == run_id]
            live: set[Viewer] = set()
            try:
                with suppress(StoreAway):
                    self._begin_together(run_id, led, live)
            finally:
                for viewer in movers:
                    if viewer not in live:
                        self._in_thread(viewer)

    def _begin_together(self, run_id: str, viewers: Sequence[Viewer], live: set[Viewer]) -> None:
        """Write what there is of a run to these, who have nothing of it yet, each frame once for all.

        Each that is live by then is put into `live`; the others must catch up. Raises StoreAway.
        """
        if not viewers:
            return
        last, frame = 0, b""
        last_id, _, page = self._feed.read_on(run_id, 0, _PAGE)
        while page and page[0][0] == last + 1:
            for piece in _pieces((number, text_frame(frame)) for number, frame in page):
                viewers = self._write_together(viewers, piece)
            last, frame = page[-1]
            # Whoever comes meanwhile may make it, further on; it does not move while this delivers.
            channel = self._channels.get(run_id)
            if not viewers or last >= max(last_id, channel.cursor if channel else 0):
                break
            _, found, page = self._feed.read_on(run_id, last, _PAGE)
            if found != frame:  # Redis has lost what they were sent, which each finds by itself
                return
        for viewer in viewers if last else ():
            if self._join(viewer, last, viewer.last, run_id):
                live.add(viewer)
        if live and (channel := self._channels.get(run_id)) is not None:  # what came when it was not there yet
            self._read_on(channel)

    @staticmethod
    def _write_together(viewers: Sequence[Viewer], piece: Page) -> list[Viewer]:
        """Write frames to those of these who take them at once; returns who did."""
        whole, took = b"".join(frame for _, frame in piece), list[Viewer]()
        for some in _in_turns(viewers):
            taken = offer_at_once([viewer.outbox for viewer in some], whole)
            for viewer in compress(some, taken):
                viewer.cursor, viewer.last = piece[-1]
                took.append(viewer)
        return took

    def _in_thread(self, viewer: Viewer) -> None:
        threading.Thread(target=self._catch_up_slow, args=(viewer,), name="catch-up", daemon=True).start()

    def _keep_alive(self) -> None:
        """Tell everyone what is no event: how many watch, and who waits in the queue."""
        self._queue_changed = False
        self._told_viewers = self.presence.total
        waiting = queue(self._store.standing(Which.NONE).waiting)
        data = {"status": "keep-alive", "connected_clients": self._told_viewers, "queue": waiting}
        body = events.frame_body(EventType.STATUS, data, None, times.now())
        frame = text_frame(events.with_id(body, None))
        for viewers in _in_turns(self._everybody()):
            taken = offer_at_once([viewer.outbox for viewer in viewers], frame)
            for viewer, took in zip(viewers, taken, strict=True):
                if not took:
                    _offer(viewer, frame)

    def _ping(self) -> None:
        for viewers in _in_turns(self._everybody()):
            for viewer in viewers:
                viewer.ping()

    def _everybody(self) -> list[Viewer]:
        with self._lock:
            return list(self._viewers)

    def _close_all(self, code: int, reason: str) -> None:
        for viewer in self._everybody():
            viewer.close(code, reason)


def _in_turns(viewers: Sequence[Viewer]) -> Iterator[Sequence[Viewer]]:
    """Some at a time; others in this process may go on in between."""
    for start in range(0, len(viewers), _TURN):
        yield viewers[start : start + _TURN]
        time.sleep(0)


def _kept_of(cursor: int, last: bytes, last_id: int, found: bytes | None) -> int | None:
    """The last event that Redis still has of those up to a cursor, where it has lost some; None: it has lost none.

    It has when its last one is before the cursor, or another is there: then none is known to be the same. A run that is
    gone with all its events, after its end was told, is none of that: its time is over.
    """
    if last_id < cursor:
        return None if not last_id and _tells(_COMPLETE, last) else last_id
    return 0 if last and found is not None and text_frame(found) != last else None


def _tells(kind: bytes, frame: bytes) -> bool:
    return kind in frame[:_HEAD]


def _pieces(frames: Iterable[tuple[int, bytes]]) -> Iterator[Page]:
    """The frames in order, as many at once as make a write of bounded size."""
    piece: Page = []
    size = 0
    for frame in frames:
        if piece and size + len(frame[1]) > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(frame)
        size += len(frame[1])
    if piece:
        yield piece


def _after(frames: Page, cursor: int) -> bytes:
    return b"".join(frame for number, frame in frames if number > cursor)


def _offer(viewer: Viewer, frame: bytes) -> bool:
    try:
        return viewer.outbox.offer(frame)
    except OSError:  # it is closing, or gone, and removed soon; any that is neither must not go on with a hole
        viewer.close(1013, TOO_SLOW)
        return True
