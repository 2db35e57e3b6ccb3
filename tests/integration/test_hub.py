"""The hub over a real Redis: each viewer gets each later event once and in order, whatever goes wrong between."""

import errno
import gc
import json
import random
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from ends import finish
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from shared import events, keys, times
from shared.errors import StoreAway
from shared.events import LogLine
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import Client
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store
from web import hub as hub_module
from web.hub import Hub, Viewer
from web.outbox import PENDING_BYTES, Outbox, Stalled, offer_at_once
from web.presence import Presence

MakeRun = Callable[..., Run]
Eventually = Callable[..., Any]


@dataclass(eq=False)
class Watcher:
    """A viewer and the client behind it, which reads all that comes, or nothing until it is told to."""

    viewer: Viewer
    client: socket.socket
    frames: list[dict[str, Any]] = field(default_factory=list)
    closed: list[tuple[int, str]] = field(default_factory=list)
    pinged: list[float] = field(default_factory=list)
    reading: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Read frames until the other side closes."""
        connection, parts = Connection(ConnectionType.CLIENT), []
        self.reading.wait()
        while data := self.client.recv(65_536):
            connection.receive_data(data)
            for event in connection.events():
                assert isinstance(event, TextMessage)
                parts.append(event.data)
                if event.message_finished:
                    self.frames.append(json.loads("".join(parts)))
                    parts = []

    def ids(self, run_id: str) -> list[int]:
        """The ids of a run's events that have come."""
        return [frame["id"] for frame in list(self.frames) if frame["run_id"] == run_id]

    def types(self) -> list[str]:
        """The types of all events that have come; who waits may be told at any time, and is none."""
        return [frame["type"] for frame in list(self.frames) if frame["id"] is not None]


class Talk:
    """Supervises runs by hand: each `say` is an event of the active run."""

    def __init__(self, store: Store, feed: Feed, leases: Leases, make_run: MakeRun) -> None:
        self.store, self._feed, self._leases, self._make_run = store, feed, leases, make_run
        self.run_id, self._fence, self._batch = "", 0, 0

    def begin(self) -> str:
        """A new run has the slot."""
        return self.take(self.store.submit(self._make_run(), "reject").run_id)

    def take(self, run_id: str) -> str:
        """That run is the one that says something."""
        held = self._leases.acquire(run_id)
        assert held is not None
        self.run_id, self._fence, self._batch = run_id, held.fence, 0
        return run_id

    def say(self, *lines: str) -> None:
        """The run says something; each line is an event."""
        self._batch += 1
        told = [
            events.log(self.run_id, [LogLine("2026-01-31T00:00:00Z", line, "p", "nextflow", "stdout", 1)], times.now())
            for line in lines
        ]
        self._feed.append(self.run_id, self._fence, Batch(self._batch, {}, told))

    def end(self) -> None:
        """The run succeeds."""
        finish(self.store, self.run_id, RunStatus.SUCCEEDED, fence=self._fence)

    def last_id(self) -> int:
        return self.store.get(self.run_id).last_id


@pytest.fixture
def talk(store: Store, feed: Feed, leases: Leases, make_run: MakeRun) -> Talk:
    return Talk(store, feed, leases, make_run)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Set to let hubs stop; set at the end of each test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hub(redis: Client, store: Store, feed: Feed, stop: threading.Event, eventually: Eventually) -> Iterator[Hub]:
    """A hub at work."""
    before = set(threading.enumerate())
    made = Hub(redis, store, feed, Presence(redis, 1000))
    made.start(stop.is_set)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "hub" and thread not in before]
    eventually(lambda: redis.pubsub_numsub(keys.CHANNEL)[0][1])
    yield made
    stop.set()
    thread.join(10)


Watch = Callable[..., Watcher]
Dumped = dict[Any, bytes]
LOST = [(1013, "Redis has lost its newest events. Connect again with since=0.")]


def add_to(hub: Hub, viewer: Viewer) -> None:
    """As a socket's own thread does, which may find that its client is gone."""
    with suppress(OSError, Stalled):
        hub.add(viewer)


@pytest.fixture
def watch(hub: Hub) -> Iterator[Watch]:
    """Makes watchers; each is added to the hub, by a thread of its own as a socket's is."""
    made: list[Watcher] = []
    threads: list[threading.Thread] = []

    def begin(
        run_id: str | None = None,
        cursor: int = 0,
        *,
        reads: bool = True,
        to: Hub = hub,
        tell_anew: Callable[[int], None] | None = None,
        sees_a_run: bool = True,
        greeted: int = 0,
    ) -> Watcher:
        server, client = socket.socketpair()
        for end in (server, client):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        closed: list[tuple[int, str]] = []
        pinged: list[float] = []
        viewer = Viewer(
            outbox=Outbox(server),
            close=lambda code, reason: closed.append((code, reason)),
            ping=lambda: pinged.append(time.monotonic()),
            run_id=run_id or (to.current if sees_a_run else None),
            cursor=cursor,
            follows=run_id is None,
            tell_anew=tell_anew,
            greeted=greeted,
        )
        watcher = Watcher(viewer, client, closed=closed, pinged=pinged)
        if reads:
            watcher.reading.set()
        threads.append(threading.Thread(target=watcher.read))
        threads.append(threading.Thread(target=add_to, args=(to, viewer)))
        for thread in threads[-2:]:
            thread.start()
        made.append(watcher)
        return watcher

    yield begin
    for watcher in made:
        hub.remove(watcher.viewer)
        watcher.viewer.outbox.end()
        watcher.viewer.outbox._sock.close()
        watcher.reading.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for watcher in made:
        watcher.client.close()


def test_a_viewer_gets_the_past_and_then_what_comes(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """From its cursor on, kept events first and live ones after, each once and in order."""
    run_id = talk.begin()
    talk.say("one", "two")
    watcher, late = watch(run_id), watch(run_id, cursor=2)
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3])
    talk.say("three")
    talk.say("four")
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3, 4, 5])
    eventually(lambda: late.ids(run_id) == [3, 4, 5])
    assert watcher.types() == ["status", "log", "log", "log", "log"]


def test_a_viewer_of_one_run_hears_of_no_other(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """Who asked for a run stays with it when another begins."""
    first = talk.begin()
    watcher = watch(first)
    talk.end()
    second = talk.begin()
    other = watch(second)
    talk.say("one")
    eventually(lambda: other.ids(second) == [1, 2])
    eventually(lambda: watcher.types() == ["status", "status", "complete"])
    assert watcher.ids(second) == []


def test_an_event_whose_message_was_lost_is_read(
    talk: Talk, watch: Watch, redis: Client, store: Store, eventually: Eventually
) -> None:
    """An event that was kept and never published comes with the next one, or within a second."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == [1])

    def keep_in_silence() -> None:
        number = redis.hincrby(keys.run(run_id), "seq", 1)
        body = events.error(run_id, times.now(), level="warning", message="lost", source="s").body()
        redis.xadd(keys.events(run_id), {"cost": 1, "body": body}, id=f"{number}-0")

    keep_in_silence()
    talk.say("next")
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3])
    keep_in_silence()
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3, 4])


def test_a_delivery_that_broke_off_loses_nothing(
    talk: Talk, watch: Watch, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever it had not come to yet gets the event with the next one."""
    run_id = talk.begin()
    monkeypatch.setattr(hub_module, "_TURN", 1)
    watchers = [watch(run_id) for _ in range(3)]
    eventually(lambda: all(watcher.ids(run_id) == [1] for watcher in watchers))
    offer, failures = offer_at_once, iter([False, True])

    def stumble(outboxes: Sequence[Outbox], frame: bytes) -> list[bool]:
        if next(failures, False):
            raise RuntimeError("broken on demand")
        return offer(outboxes, frame)

    monkeypatch.setattr(hub_module, "offer_at_once", stumble)
    talk.say("one")
    eventually(lambda: next(failures, None) is None)
    talk.say("two")
    eventually(lambda: all(watcher.ids(run_id) == [1, 2, 3] for watcher in watchers))


def test_who_follows_is_led_on_from_the_middle_of_a_delivery(
    talk: Talk, watch: Watch, hub: Hub, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run begins while the last event of one is written to many: nobody misses its end."""
    monkeypatch.setattr(hub_module, "_TURN", 1)
    first = talk.begin()
    hub.notice()
    watchers = [watch() for _ in range(6)]
    eventually(lambda: all(watcher.ids(first) == [1] for watcher in watchers))
    offer, begun = offer_at_once, threading.Event()

    def lead_on() -> None:
        talk.begin()
        hub.notice()

    def begin_the_next(outboxes: Sequence[Outbox], frame: bytes) -> list[bool]:
        if b'"complete"' in frame and not begun.is_set():
            begun.set()
            threading.Thread(target=lead_on).start()
        time.sleep(0.1)
        return offer(outboxes, frame)

    monkeypatch.setattr(hub_module, "offer_at_once", begin_the_next)
    talk.end()
    eventually(lambda: talk.run_id != first and all(watcher.ids(talk.run_id) for watcher in watchers))
    last = [watcher.ids(first) for watcher in watchers]
    assert last == [[1, 2, 3]] * 6


def test_who_follows_into_a_run_whose_beginning_is_gone_is_told(
    talk: Talk, watch: Watch, hub: Hub, feed: Feed, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much was said before it came there that the first events are no longer kept: it has to connect again."""
    first = talk.begin()
    hub.notice()
    told: list[int] = []
    watcher = watch(tell_anew=told.append)
    eventually(lambda: watcher.ids(first) == [1])
    newcomer = watch(cursor=1, tell_anew=told.append)  # it is live at once, with nothing to read before
    eventually(lambda: newcomer.viewer in hub._live(first))
    read_on = feed.read_on

    def without_the_first(run_id: str, after: int, most: int) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        last_id, found, page = read_on(run_id, after, most)
        return last_id, found, [event for event in page if run_id == first or event[0] > 2]

    monkeypatch.setattr(feed, "read_on", without_the_first)
    monkeypatch.setattr(hub, "_relay", lambda _: None)  # nor was it there when they came
    talk.end()
    talk.begin()
    talk.say("two", "three", "four")
    eventually(lambda: watcher.closed)
    eventually(lambda: newcomer.closed)
    assert watcher.closed == newcomer.closed == [(1013, hub_module.TOO_SLOW)]
    assert told == []
    assert watcher.ids(first) == [1, 2, 3]
    assert watcher.ids(talk.run_id) == []


def test_a_viewer_that_falls_behind_is_caught_up_by_one_thread(
    talk: Talk, watch: Watch, hub: Hub, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when two deliveries find at once that it has."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == [1])
    eventually(lambda: watcher.viewer in hub._live(run_id))
    begun: list[Viewer] = []
    monkeypatch.setattr(hub, "_in_thread", begun.append)
    for _ in range(2):
        hub._let_catch_up([watcher.viewer])
    assert begun == [watcher.viewer]


def test_a_late_message_of_an_earlier_run_leads_nobody_back(
    talk: Talk, watch: Watch, hub: Hub, eventually: Eventually
) -> None:
    """Two runs that end at once: whoever heard of the second first stays there."""
    first = talk.begin()
    talk.end()
    second = talk.begin()
    talk.end()
    hub.notice()
    watcher = watch(cursor=0)
    eventually(lambda: watcher.ids(second) == [1, 2, 3])
    hub._relay([(first, 1, b'{"type":"status","data":{"status":"starting"}}')])
    assert hub.current == second
    assert watcher.ids(first) == []


def test_what_two_threads_have_read_is_delivered_once(
    talk: Talk, watch: Watch, redis: Client, store: Store, feed: Feed, eventually: Eventually
) -> None:
    """The hub's thread and one that leads viewers on ask for the same events; the second has more of them."""
    run_id = talk.begin()
    hub = Hub(redis, store, feed, Presence(redis, 10))
    hub.notice()
    watcher = watch(run_id, to=hub)
    eventually(lambda: run_id in hub._channels)
    channel = hub._channels[run_id]
    talk.say("one", "two")
    earlier = feed.read(run_id, channel.cursor, 10)
    talk.say("three")
    later = feed.read(run_id, channel.cursor, 10)
    hub._deliver(channel, earlier)
    hub._deliver(channel, later)
    hub._deliver(channel, earlier)
    eventually(lambda: len(watcher.ids(run_id)) >= 4)
    assert watcher.ids(run_id) == [1, 2, 3, 4]


def test_a_write_is_bounded_however_much_has_come() -> None:
    """Frames are joined up to a size; a larger one goes alone."""
    frames = [(number, b"x" * 60_000) for number in range(5)] + [(5, b"x" * 500_000), (6, b"x")]
    pieces = list(hub_module._pieces(frames))
    assert [frame for piece in pieces for frame in piece] == frames
    assert [len(piece) for piece in pieces] == [2, 2, 1, 1, 1]


def test_who_comes_while_the_server_stops_is_told_so(
    talk: Talk, watch: Watch, stop: threading.Event, eventually: Eventually
) -> None:
    """A handshake that ends after all others were closed is no viewer that waits for ever."""
    run_id = talk.begin()
    stop.set()
    watcher = watch(run_id)
    eventually(lambda: watcher.closed)
    # The hub's own thread may have been about to close it too; a connection says goodbye once.
    assert set(watcher.closed) == {(1012, "The server restarts; connect again in a second.")}


def test_what_comes_while_the_hub_writes_shares_a_write(
    talk: Talk, watch: Watch, hub: Hub, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long delivery the next one waits a moment, and takes all that came with it, in order."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == [1])
    offered: list[bytes] = []
    offer = offer_at_once

    def count(outboxes: Sequence[Outbox], frame: bytes) -> list[bool]:
        offered.append(frame)
        return offer(outboxes, frame)

    monkeypatch.setattr(hub_module, "offer_at_once", count)
    hub._deliver_at = time.monotonic() + 0.5
    for number in range(20):
        talk.say(str(number))
    eventually(lambda: watcher.ids(run_id) == list(range(1, 22)))
    assert len(offered) == 1


def test_a_cut_subscription_loses_nothing(talk: Talk, watch: Watch, redis: Client, eventually: Eventually) -> None:
    """However often Redis drops the subscription, each event comes once and in order."""
    run_id = talk.begin()
    watchers = [watch(run_id), watch()]
    for number in range(60):
        if number % 10 == 5:
            redis.client_kill_filter(_type="pubsub")
        talk.say(str(number))
    wanted = list(range(1, 62))
    for watcher in watchers:
        eventually(lambda watcher=watcher: len(watcher.ids(run_id)) >= 61)
        assert watcher.ids(run_id) == wanted


def test_a_viewer_follows_from_run_to_run(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """Who follows gets every event of each run from its first to its `complete`, and then the next run's."""
    watcher = watch()
    runs = []
    for _ in range(4):
        runs.append(talk.begin())
        talk.say("one", "two")
        eventually(lambda: watcher.ids(runs[-1])[-1:] == [3])
        talk.end()
    eventually(lambda: watcher.types().count("complete") == 4)
    # A keep-alive may come in between; it has no id.
    told = [(frame["run_id"], frame["id"]) for frame in watcher.frames if frame["id"] is not None]
    assert told == [(run_id, number) for run_id in runs for number in range(1, 6)]


def test_those_that_follow_are_led_on_together(
    hub: Hub,
    talk: Talk,
    watch: Watch,
    store: Store,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What there is of the next run is read once for all of them; who sees that run already has nothing twice."""
    first = talk.begin()
    second = store.submit(make_run(), "queue").run_id
    followers, ahead = [watch() for _ in range(30)], watch(second)
    for one in followers:
        eventually(lambda one=one: one.ids(first) == [1])
    eventually(lambda: ahead.ids(second) == [1])
    reads: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(hub._feed, name)

        def read(*args: Any) -> Any:
            reads.append(name)
            return real(*args)

        return read

    for name in ("read", "read_on"):
        monkeypatch.setattr(hub._feed, name, counted(name))
    talk.end()
    store.begin_next()
    for one in followers:
        eventually(lambda one=one: one.ids(second) == [1, 2])
    assert len(reads) < len(followers)
    talk.take(second)
    talk.say("one", "two")
    talk.end()
    for one in [*followers, ahead]:
        eventually(lambda one=one: one.ids(second) == [1, 2, 3, 4, 5, 6])
    assert {tuple(one.ids(first)) for one in followers} == {(1, 2, 3)}
    everybody = {one.viewer for one in [*followers, ahead]}
    eventually(lambda: hub._channels[second].viewers == everybody)


class Box:
    """An outbox that takes everything at once."""

    idle = True

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def offer(self, frames: bytes, **_: int) -> bool:
        """Take these."""
        self.taken.append(frames)
        return True

    def flush(self) -> None:
        """There is nothing to wait for."""

    def ids(self) -> list[int]:
        """Of all events, in the order in which they were taken."""
        return [int(number) for number in re.findall(rb'{"id":(\d+),', b"".join(self.taken))]


Seen = tuple[Box, list[tuple[int, str]]]


@pytest.fixture
def quiet(redis: Client, store: Store, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub whose own thread is not at work: the test does what that would do."""
    monkeypatch.setattr(hub_module, "offer_at_once", lambda boxes, frames: [box.offer(frames) for box in boxes])
    made = Hub(redis, store, feed, Presence(redis, 1000))
    made.start(lambda: False, when_needed=True)
    monkeypatch.setattr(made, "_begin", lambda: None)
    return made


def sees(hub: Hub, run_id: str, *, follows: bool) -> Seen:
    """What a viewer of that run has, which is live by now, and how it was closed."""
    outbox: Any = Box()
    closed: list[tuple[int, str]] = []
    hub.add(Viewer(outbox, lambda *told: closed.append(told), lambda: None, run_id, cursor=0, follows=follows))
    return outbox, closed


def next_run(talk: Talk, store: Store, run_id: str) -> None:
    """The run before ends, and that one begins."""
    talk.end()
    store.begin_next()
    talk.take(run_id)


def fifty(hub: Hub, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Seen], str, list[Viewer]]:
    """What as many have that follow, written to ten at a time, whose run has ended, and the next has begun.

    That run, and those for whom a thread should have been started.
    """
    monkeypatch.setattr(hub_module, "_TURN", 10)
    first = talk.begin()
    hub.notice()
    followers = [sees(hub, first, follows=True) for _ in range(50)]
    talk.end()
    started: list[Viewer] = []
    monkeypatch.setattr(hub, "_in_thread", started.append)
    return followers, talk.begin(), started


def test_followers_are_led_on_beside_one_that_is_far_behind(
    quiet: Hub,
    store: Store,
    feed: Feed,
    talk: Talk,
    make_run: MakeRun,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the hub reads on for one, who joins leads the others to the same run: nobody is closed or misses any."""
    first, second = talk.begin(), store.submit(make_run(), "queue").run_id
    quiet.notice()
    followers, early = [sees(quiet, first, follows=True) for _ in range(3)], sees(quiet, second, follows=False)
    next_run(talk, store, second)
    for _ in range(4):
        talk.say(*["x"] * 50)
    real = feed.read
    joiners: list[threading.Thread] = []

    def read(run_id: str, after: int, most: int = 100) -> Any:
        page = real(run_id, after, most)
        if run_id == second and not joiners:
            joiners.append(threading.Thread(target=quiet.notice))
            joiners[0].start()
            time.sleep(0.1)
        return page

    monkeypatch.setattr(feed, "read", read)
    quiet._read_on(quiet._channels[second])
    joiners[0].join(10)
    wanted = list(range(1, 203))
    for box, _ in [*followers, early]:
        eventually(lambda box=box: box.ids()[-202:] == wanted)
    assert [closed for _, closed in [*followers, early]] == [[]] * 4


def test_what_redis_lost_is_told_to_who_was_ahead_of_those_that_are_led_on(
    quiet: Hub, redis: Client, store: Store, talk: Talk, make_run: MakeRun
) -> None:
    """They come to what is left of the run; who has seen more of it is closed, and does not go on with other events."""
    first, second = talk.begin(), store.submit(make_run(), "queue").run_id
    quiet.notice()
    follower, ahead = sees(quiet, first, follows=True), sees(quiet, second, follows=False)
    next_run(talk, store, second)
    talk.say("one")
    before = dumped(redis, keys.run(second), keys.events(second))
    talk.say("two", "three")
    quiet._read_on(quiet._channels[second])
    assert ahead[0].ids() == [1, 2, 3, 4, 5]
    restore(redis, before)
    quiet.notice()
    quiet._reread()
    assert ahead[1][:1] == LOST
    assert follower[1] == []


def test_what_comes_while_followers_are_led_on_costs_no_thread(
    quiet: Hub, feed: Feed, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins leads them on, and the hub has the next event before all have the first: each has both, in order."""
    followers, second, started = fifty(quiet, talk, monkeypatch)
    hubs: list[threading.Thread] = []

    def offer(boxes: Sequence[Box], frames: bytes) -> list[bool]:
        if second.encode() in frames and not hubs:
            talk.say("next")
            hubs.append(threading.Thread(target=lambda: quiet._relay_run(second, feed.read(second, 1))))
            hubs[0].start()
            time.sleep(0.1)
        return [box.offer(frames) for box in boxes]

    monkeypatch.setattr(hub_module, "offer_at_once", offer)
    quiet.notice()
    hubs[0].join(10)
    assert not started
    assert {tuple(box.ids()) for box, _ in followers} == {(1, 2, 3, 1, 2)}


def test_who_comes_as_the_last_one_leaves_is_led_on_too(
    quiet: Hub, feed: Feed, talk: Talk, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is reloaded just as its run ends, while Redis is asked for the end: it is not left with that run."""
    first = talk.begin()
    quiet.notice()
    sees(quiet, first, follows=True)
    [leaves] = quiet._viewers
    talk.end()
    second = talk.begin()
    real = feed.read_on
    comes: list[Seen] = []

    def read_on(run_id: str, after: int, most: int) -> Any:
        if run_id == first and not comes:
            quiet.remove(leaves)
            monkeypatch.setattr(feed, "read_on", real)
            comes.append(sees(quiet, first, follows=True))
        return real(run_id, after, most)

    monkeypatch.setattr(feed, "read_on", read_on)
    quiet.notice()
    eventually(lambda: second in quiet._channels and quiet._channels[second].viewers)
    assert comes[0][0].ids() == [1, 2, 3, 1]


def test_what_goes_wrong_while_they_are_led_on_leaves_nobody_behind(
    quiet: Hub, feed: Feed, talk: Talk, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: then each goes by itself."""
    first = talk.begin()
    quiet.notice()
    follower, _ = sees(quiet, first, follows=True)
    talk.end()
    second = talk.begin()
    real = feed.read_on

    def read_on(run_id: str, after: int, most: int) -> Any:
        if run_id == second:
            monkeypatch.setattr(feed, "read_on", real)
            raise ValueError("something else")
        return real(run_id, after, most)

    monkeypatch.setattr(feed, "read_on", read_on)
    with pytest.raises(ValueError, match="something else"):
        quiet.notice()
    eventually(lambda: follower.ids() == [1, 2, 3, 1])
    assert first in quiet._left


def test_a_run_that_says_ever_more_holds_nobody_who_leads_others_to_it(
    quiet: Hub, feed: Feed, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that it is looked at there is more: who joins need not read all of it before it is served."""
    first = talk.begin()
    quiet.notice()
    follower, _ = sees(quiet, first, follows=True)
    talk.end()
    second = talk.begin()
    reads: list[str] = []

    def with_more(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(run_id: str, *args: int) -> Any:
            if run_id == second:
                reads.append(run_id)
                if len(reads) < 20:
                    talk.say("more")
            return real(run_id, *args)

        return read

    for name in ("read", "read_on"):
        monkeypatch.setattr(feed, name, with_more(getattr(feed, name)))
    quiet.notice()
    assert len(reads) < 5
    assert follower.ids()[:5] == [1, 2, 3, 1, 2]


def test_one_that_comes_with_more_is_no_reason_for_a_thread_each(
    quiet: Hub, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before all have the first event of the next run, somebody who asked for it by name has two."""
    followers, second, started = fifty(quiet, talk, monkeypatch)
    comes: list[Seen] = []

    def offer(boxes: Sequence[Box], frames: bytes) -> list[bool]:
        if second.encode() in frames and not comes:
            talk.say("next")
            comes.append(sees(quiet, second, follows=False))
        return [box.offer(frames) for box in boxes]

    monkeypatch.setattr(hub_module, "offer_at_once", offer)
    quiet.notice()
    assert not started
    assert {tuple(box.ids()) for box, _ in followers} == {(1, 2, 3, 1, 2)}
    assert len(quiet._channels[second].viewers) == 51


def test_a_redis_that_loses_events_while_they_are_led_on_is_told(
    quiet: Hub, redis: Client, feed: Feed, talk: Talk, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages it comes back with others: who was sent the first page does not get the second of those."""
    first = talk.begin()
    quiet.notice()
    _, closed = sees(quiet, first, follows=True)
    talk.end()
    second = talk.begin()
    talk.say("one")
    before = dumped(redis, keys.run(second), keys.events(second))
    talk.say(*["more"] * 100)
    real = feed.read_on

    def read_on(run_id: str, after: int, most: int) -> Any:
        if run_id == second and after:
            monkeypatch.setattr(feed, "read_on", real)
            set_back_and_go_on(redis, second, before, 102)
        return real(run_id, after, most)

    monkeypatch.setattr(feed, "read_on", read_on)
    quiet.notice()
    eventually(lambda: closed[:1] == LOST)


def test_none_that_takes_nothing_holds_up_the_others(
    quiet: Hub, feed: Feed, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has said much by the time that it is followed: no more of it is read than somebody takes at once."""
    first = talk.begin()
    quiet.notice()
    sees(quiet, first, follows=True)
    talk.end()
    talk.begin()
    talk.say(*["much"] * 500)
    asked: list[int] = []
    real = feed.read_on

    def read_on(run_id: str, after: int, most: int) -> Any:
        asked.append(after)
        return real(run_id, after, most)

    monkeypatch.setattr(feed, "read_on", read_on)
    monkeypatch.setattr(quiet, "_in_thread", lambda _: None)
    monkeypatch.setattr(hub_module, "offer_at_once", lambda boxes, _: [False] * len(boxes))
    quiet.notice()
    assert len(asked) <= 2


def test_a_look_at_redis_amid_a_delivery_takes_nobody_for_slow(
    quiet: Hub, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread delivers the end of a run, and before it has come to all the hub's own looks who is behind."""
    followers, _, started = fifty(quiet, talk, monkeypatch)
    hubs: list[threading.Thread] = []

    def offer(boxes: Sequence[Box], frames: bytes) -> list[bool]:
        if not hubs:
            hubs.append(threading.Thread(target=quiet._reread))
            hubs[0].start()
            time.sleep(0.2)
        return [box.offer(frames) for box in boxes]

    monkeypatch.setattr(hub_module, "offer_at_once", offer)
    quiet.notice()
    hubs[0].join(10)
    assert not started
    assert {tuple(box.ids()) for box, _ in followers} == {(1, 2, 3, 1)}


def test_none_is_led_to_a_run_whose_first_events_are_gone(
    redis: Client, store: Store, feed: Feed, talk: Talk, watch: Watch
) -> None:
    """Then each goes by itself, and is told."""
    run_id = talk.begin()
    talk.say("one")
    redis.xdel(keys.events(run_id), "1-0")
    viewer = watch(run_id, cursor=2).viewer
    aside = Hub(redis, store, feed, Presence(redis, 1000))
    live: set[Viewer] = set()
    aside._begin_together(run_id, [viewer], live)
    assert (live, aside._channels) == (set(), {})
    assert viewer.cursor == 2


def test_joining_while_events_flow(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """Viewers that join at any moment, from any event on, get each later event once and in order."""
    chance = random.Random(7)
    run_id = talk.begin()
    done = threading.Event()

    def speak() -> None:
        for number in range(150):
            talk.say(*(f"{number}.{line}" for line in range(chance.randrange(1, 4))))
        done.set()

    speaker = threading.Thread(target=speak)
    speaker.start()
    joined: list[tuple[int, Watcher]] = []
    while len(joined) < (4 if done.is_set() else 30):
        cursor = chance.randrange(talk.last_id() + 1)
        joined.append((cursor, watch(run_id, cursor)))
    speaker.join()
    last = talk.last_id()
    for cursor, watcher in joined:
        eventually(lambda watcher=watcher: watcher.ids(run_id)[-1:] == [last])
        assert watcher.ids(run_id) == list(range(cursor + 1, last + 1))


def test_a_slow_viewer_holds_up_nobody_and_catches_up(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """While one does not read, others get all at once; when it reads again it gets all as well."""
    run_id = talk.begin()
    slow, quick = watch(run_id, reads=False), watch(run_id)
    text = "x" * 10_000
    for _ in range(PENDING_BYTES // len(text) * 2):
        talk.say(text)
    last = talk.last_id()
    eventually(lambda: quick.ids(run_id)[-1:] == [last])
    assert slow.frames == []
    assert len(slow.viewer.outbox._pending) <= PENDING_BYTES + 50 * 11_000
    slow.reading.set()
    eventually(lambda: slow.ids(run_id)[-1:] == [last])
    talk.say("live again")
    for watcher in (slow, quick):
        eventually(lambda watcher=watcher: watcher.ids(run_id)[-1:] == [last + 1])
        assert watcher.ids(run_id) == list(range(1, last + 2))


def test_a_page_for_whoever_catches_up_is_small(
    feed: Feed, talk: Talk, watch: Watch, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large events it has few, of small ones many; each comes once all the same."""
    asked: list[int] = []

    def counted(read: Callable[..., Any], others: int) -> Callable[..., Any]:
        def reading(run_id: str, after: int, most: int) -> Any:
            asked.append(most - others)
            return read(run_id, after, most)

        return reading

    monkeypatch.setattr(feed, "read_on", counted(feed.read_on, 0))
    monkeypatch.setattr(feed, "read", counted(feed.read, 1))  # with the one that it has
    run_id = talk.begin()
    talk.say(*["x" * 100_000] * 40, *["small"] * 90)
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == list(range(1, 132)))
    assert asked[:3] == [25, 10, 10]
    assert 50 in asked


def test_who_fell_behind_all_that_is_kept_is_closed(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """A viewer whose next event is gone gets no later one, as if nothing were missing: it is closed with 1013."""
    run_id = talk.begin()
    slow = watch(run_id, reads=False)
    eventually(lambda: slow.viewer.cursor == 1)
    for _ in range(40):
        talk.say(*["x" * 60_000] * 5)
    assert talk.last_id() == 201
    slow.reading.set()
    eventually(lambda: slow.closed)
    assert slow.closed[0][0] == 1013
    ids = slow.ids(run_id)
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) < 201


def test_a_viewer_that_left_is_forgotten(talk: Talk, watch: Watch, hub: Hub, eventually: Eventually) -> None:
    """Nothing of a viewer stays behind, and others go on."""
    run_id = talk.begin()
    leaver, other = watch(run_id), watch(run_id)
    eventually(lambda: leaver.ids(run_id) == other.ids(run_id) == [1])
    hub.remove(leaver.viewer)
    hub.remove(leaver.viewer)
    talk.say("one")
    eventually(lambda: other.ids(run_id) == [1, 2])
    assert leaver.ids(run_id) == [1]


def test_a_viewer_whose_client_is_gone_disturbs_nobody(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """A broken pipe is that viewer's own trouble."""
    run_id = talk.begin()
    gone, other = watch(run_id), watch(run_id)
    eventually(lambda: gone.ids(run_id) == other.ids(run_id) == [1])
    gone.viewer.outbox._sock.shutdown(socket.SHUT_RDWR)
    for _ in range(5):
        talk.say("one")
    eventually(lambda: other.ids(run_id) == [1, 2, 3, 4, 5, 6])


def test_an_id_not_reached_yet_is_waited_for(talk: Talk, watch: Watch, eventually: Eventually) -> None:
    """Who asks for what comes after a later event than the last gets that, and nothing before."""
    run_id = talk.begin()
    early, late = watch(run_id), watch(run_id, cursor=3, tell_anew=lambda _: None)
    for _ in range(4):
        talk.say("one")
    eventually(lambda: early.ids(run_id) == [1, 2, 3, 4, 5])
    eventually(lambda: late.ids(run_id) == [4, 5])


def test_who_waits_is_told_to_everyone(
    talk: Talk, watch: Watch, store: Store, make_run: MakeRun, eventually: Eventually
) -> None:
    """When a run queues, each viewer hears of the queue soon, in a frame that is no event."""
    watcher = watch(talk.begin())
    store.submit(waiting := make_run(), "queue")

    def told() -> bool:
        queues = [frame["data"].get("queue") for frame in list(watcher.frames) if frame["id"] is None]
        return [entry["run_id"] for queue in queues[-1:] for entry in queue] == [waiting.run_id]

    eventually(told)


def test_keep_alives_are_no_events(
    talk: Talk, watch: Watch, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A keep-alive has no id, and tells how many watch."""
    monkeypatch.setattr(hub_module, "KEEP_ALIVE_SECONDS", 0.1)
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: [frame for frame in list(watcher.frames) if frame["data"].get("status") == "keep-alive"])
    frame = next(frame for frame in watcher.frames if frame["data"].get("status") == "keep-alive")
    assert (frame["type"], frame["id"], frame["run_id"]) == ("status", None, None)
    assert isinstance(frame["data"]["connected_clients"], int)


def test_every_viewer_is_asked_for_a_sign_of_life(
    talk: Talk, watch: Watch, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """With each keep-alive, whatever run it sees."""
    monkeypatch.setattr(hub_module, "KEEP_ALIVE_SECONDS", 0.1)
    watchers = [watch(), watch(talk.begin())]
    eventually(lambda: all(len(watcher.pinged) > 1 for watcher in watchers))


def test_a_server_that_stops_says_so(talk: Talk, watch: Watch, stop: threading.Event, eventually: Eventually) -> None:
    """Every viewer is closed with 1012, which means: connect again."""
    run_id = talk.begin()
    watchers = [watch(run_id), watch()]
    eventually(lambda: all(watcher.ids(run_id) == [1] for watcher in watchers))
    stop.set()
    for watcher in watchers:
        eventually(lambda watcher=watcher: watcher.closed)
        assert watcher.closed[0][0] == 1012


def test_a_redis_that_lost_its_newest_events_is_told(
    talk: Talk, watch: Watch, redis: Client, eventually: Eventually
) -> None:
    """Ids begin again where they are, so whoever saw later ones is asked to come again, and sees what comes then."""
    run_id = talk.begin()
    talk.say("one", "two")
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3])
    kept = redis.xrange(keys.events(run_id))[:2]
    redis.delete(keys.events(run_id))
    for number, fields in kept:
        redis.xadd(keys.events(run_id), fields, id=number)
    redis.hset(keys.run(run_id), "seq", 2)
    eventually(lambda: watcher.closed)
    assert watcher.closed[0] == LOST[0]
    back = watch(run_id)
    talk.say("three")
    eventually(lambda: back.ids(run_id) == [1, 2, 3])


def dumped(redis: Client, *names: Any) -> Dumped:
    """What Redis has under these names, to be given to `restore`."""
    return {name: redis.dump(name) for name in names}


def restore(redis: Client, before: Dumped) -> None:
    """Redis has that again, whatever came since."""
    for name, value in before.items():
        redis.restore(name, 0, value, replace=True)


def set_back_and_go_on(redis: Client, run_id: str, before: Dumped, last: int = 5) -> None:
    """The run is as it was, with two events, and then told of others."""
    restore(redis, before)
    for number in range(3, last + 1):
        redis.xadd(keys.events(run_id), {"cost": 1, "body": b'{"type":"log","data":{}}'}, id=number)
    redis.hset(keys.run(run_id), "seq", last)


def test_a_redis_that_lost_its_newest_events_and_went_on_is_told(
    talk: Talk, watch: Watch, redis: Client, eventually: Eventually
) -> None:
    """By the time that the hub is back in touch, ids that its viewers saw mean other events."""
    run_id = talk.begin()
    talk.say("one")
    watcher = watch(run_id)
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    talk.say("two", "three")
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3, 4])
    with redis.pipeline(transaction=True) as lost:
        set_back_and_go_on(lost, run_id, before)
        lost.client_kill_filter(_type="pubsub")
        lost.execute()
    eventually(lambda: watcher.closed)
    assert watcher.closed[0] == LOST[0]


def test_one_that_catches_up_is_told_of_a_loss_too(
    talk: Talk, watch: Watch, redis: Client, eventually: Eventually
) -> None:
    """It has been sent what Redis lost, and would take what comes under the same ids for that."""
    run_id = talk.begin()
    talk.say("one")
    before = redis.dump(keys.run(run_id))
    talk.say("two", "three")
    watcher = watch(run_id)
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3, 4])
    with redis.pipeline(transaction=True) as lost:
        lost.restore(keys.run(run_id), 0, before, replace=True)
        lost.xdel(keys.events(run_id), 3, 4)
        lost.execute()
    back = watch(run_id, cursor=4)
    eventually(lambda: back.closed)
    assert back.closed[0] == LOST[0]


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("goes_on", [False, True])
def test_one_that_reads_slowly_is_told_of_a_loss_between_two_pages(
    redis: Client, store: Store, feed: Feed, talk: Talk, monkeypatch: pytest.MonkeyPatch, goes_on: bool, away: bool
) -> None:
    """Redis loses what it was sent while it reads, and may have other events under the same ids by then."""
    run_id = talk.begin()
    talk.say("one")
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    talk.say("two", "three", "four")
    sent: list[bytes] = []

    def offer(frames: bytes, most: int) -> bool:
        sent.append(frames)
        if goes_on:
            set_back_and_go_on(redis, run_id, before)
        else:
            restore(redis, before)
        if away:
            monkeypatch.setattr(feed, "read_on", no_answer)
        return True

    def no_answer(*_: object) -> None:
        monkeypatch.setattr(feed, "read_on", read_on)
        raise StoreAway("Redis does not answer.")

    read_on = feed.read_on
    closed: list[tuple[int, str]] = []
    outbox: Any = SimpleNamespace(offer=offer, flush=lambda: None)
    hub = Hub(redis, store, feed, Presence(redis, 1000))
    slow = Viewer(outbox, lambda *told: closed.append(told), lambda: None, run_id, cursor=1, follows=False, most=2)
    hub.start(lambda: False, when_needed=True)
    monkeypatch.setattr(hub, "_begin", lambda: None)  # nobody else reads
    with pytest.raises(Stalled):
        hub.add(slow)
    assert closed == LOST
    assert len(sent) == 1


def test_one_that_has_to_wait_is_sent_what_there_is_by_then(
    redis: Client, store: Store, feed: Feed, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was kept for it meanwhile: Redis has others under the same ids, and it has seen none of those before."""
    run_id = talk.begin()
    talk.say("one")
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    talk.say("two", "three")
    taken, offered, closed = iter([False, True]), list[bytes](), list[tuple[int, str]]()

    def offer(frames: bytes, **_: int) -> bool:
        offered.append(frames)
        return next(taken)

    flush = partial(set_back_and_go_on, redis, run_id, before, 4)
    outbox: Any = SimpleNamespace(offer=offer, flush=flush, idle=True)
    hub = Hub(redis, store, feed, Presence(redis, 1000))
    slow = Viewer(outbox, lambda *told: closed.append(told), lambda: None, run_id, cursor=1, follows=False)
    hub.start(lambda: False, when_needed=True)
    monkeypatch.setattr(hub, "_begin", lambda: None)  # nobody else reads
    hub.add(slow)
    assert (slow.cursor, closed) == (4, [])
    assert b"three" in offered[0]
    assert b"three" not in offered[1]
    assert offered[1].count(b'"data":{}') == 2


@pytest.mark.parametrize("more", [0, 3], ids=["as many", "more"])
@pytest.mark.parametrize("alone", [True, False])
def test_one_that_became_slow_is_told_of_a_loss(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually, alone: bool, more: int
) -> None:
    """It has not read yet what Redis loses, when there are others under the same ids, and perhaps others see those."""
    run_id = talk.begin()
    talk.say("one")
    slow = watch(run_id, reads=False)
    eventually(lambda: slow.viewer in hub._live(run_id))
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    while slow.viewer in hub._live(run_id):
        talk.say("x" * 10_000)
    had = slow.viewer.cursor
    with redis.pipeline(transaction=True) as lost:
        set_back_and_go_on(lost, run_id, before, had + more)
        lost.execute()
    if not alone:
        other = watch(run_id)
        eventually(lambda: other.viewer in hub._live(run_id))
    slow.reading.set()
    eventually(lambda: slow.closed)
    assert slow.closed[0] == LOST[0]
    assert slow.ids(run_id)[-1:] <= [had]


@pytest.mark.parametrize("follows", [False, True])
def test_a_run_whose_time_ends_is_no_loss(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually, follows: bool
) -> None:
    """Its viewers stay, and who follows is led on."""
    first = talk.begin()
    talk.end()
    hub.notice()
    watcher = watch(None if follows else first)
    eventually(lambda: watcher.ids(first) == [1, 2, 3] and watcher.viewer in hub._live(first))
    redis.delete(keys.run(first), keys.events(first))
    hub._reread()
    second = talk.begin()
    hub.notice()
    eventually(lambda: watcher.ids(second) == [1] * follows)
    assert watcher.closed == []


def test_a_loss_is_told_before_another_run_is_followed(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually
) -> None:
    """The run has gone on and ended, and the next one begun, by the time that the hub looks."""
    first = talk.begin()
    talk.say("one")
    watcher = watch()
    before = dumped(redis, keys.run(first), keys.events(first))
    talk.say("two", "three")
    eventually(lambda: watcher.ids(first) == [1, 2, 3, 4] and watcher.viewer in hub._live(first))
    with redis.pipeline(transaction=True) as lost:
        set_back_and_go_on(lost, first, before)
        lost.set(keys.ACTIVE, "run-20260131-000000-abcdef12")
        lost.hset(keys.run("run-20260131-000000-abcdef12"), "seq", 0)
        lost.execute()
    hub.notice()
    assert watcher.closed[:1] == LOST


class Interrupted(Feed):
    """A feed whose reader is interrupted, once, when it has learned what the last event is, and that event.

    `halfway`: before Redis comes to what is later than that.
    """

    meanwhile: Callable[[], None] | None = None
    halfway = False

    def read_on(self, run_id: str, after: int, most: int) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        last_id, found, page = super().read_on(run_id, after, most)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
            if self.halfway:
                page = self.read(run_id, after, most)
        return last_id, found, page


@pytest.fixture
def interrupted(redis: Client, settings: Settings) -> Interrupted:
    return Interrupted(redis, settings)


def lose_what_came_since(redis: Client, before: Dumped) -> None:
    """Redis is as it was, and its subscribers have to come again."""
    with redis.pipeline(transaction=True) as lost:
        for key in redis.keys("*"):
            lost.delete(key)
        restore(lost, before)
        lost.client_kill_filter(_type="pubsub")
        lost.execute()


@pytest.mark.parametrize("follows", [False, True])
def test_who_sees_a_run_that_redis_lost_whole_is_told(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually, follows: bool
) -> None:
    """It began in what was lost, so nothing of it is kept, and nothing is told of its end."""
    before = dumped(redis, *redis.keys())
    run_id = talk.begin()
    hub.notice()
    watcher = watch(None if follows else run_id)
    eventually(lambda: watcher.ids(run_id) == [1] and watcher.viewer in hub._live(run_id))
    lose_what_came_since(redis, before)
    eventually(lambda: watcher.closed)
    assert watcher.closed[:1] == LOST


def test_a_queued_run_that_begins_again_is_no_second_loss(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, store: Store, make_run: MakeRun, eventually: Eventually
) -> None:
    """Redis has lost the end of a run and the beginning of the next one, and both come again."""
    first = talk.begin()
    hub.notice()
    second = store.submit(make_run(), "queue").run_id
    watcher = watch()
    eventually(lambda: watcher.ids(first) == [1])
    before = dumped(redis, *redis.keys())
    talk.end()
    store.begin_next()
    eventually(lambda: watcher.ids(second)[-1:] == [2])
    lose_what_came_since(redis, before)
    eventually(lambda: watcher.closed)
    eventually(lambda: hub.current == first)
    back = watch()
    eventually(lambda: back.ids(first) == [1])
    talk.end()
    eventually(lambda: back.ids(first) == [1, 2, 3])
    store.begin_next()
    eventually(lambda: back.ids(second) == [1, 2])
    assert (watcher.closed[:1], back.closed) == (LOST, [])


def test_one_that_was_greeted_before_a_loss_does_not_go_on_with_a_hole(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, feed: Feed, eventually: Eventually, monkeypatch: Any
) -> None:
    """It was told that it has all of four events, and has been sent nothing yet, when Redis comes back with two."""
    run_id = talk.begin()
    talk.say("one")
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    talk.say("two", "three")
    away, read_on = threading.Event(), feed.read_on

    def reading_on(run_id: str, after: int, most: int) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        if not away.is_set():
            raise StoreAway("Redis does not answer.")
        return read_on(run_id, after, most)

    monkeypatch.setattr(feed, "read_on", reading_on)
    comes, waits = (watch(run_id, cursor=4, tell_anew=lambda _: None, greeted=greeted) for greeted in (4, 2))
    restore(redis, before)
    away.set()
    eventually(lambda: comes.closed)
    assert comes.closed[:1] == LOST
    eventually(lambda: waits.viewer in hub._live(run_id))
    assert waits.closed == []


@pytest.mark.parametrize("ended", [False, True])
def test_who_follows_is_not_led_back_to_an_earlier_run(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually, ended: bool
) -> None:
    """Redis has lost the later one: the events of the earlier one have been seen."""
    first = talk.begin()
    hub.notice()
    watcher = watch()
    talk.end()
    eventually(lambda: watcher.ids(first) == [1, 2, 3])
    before = dumped(redis, *redis.keys())
    second = talk.begin()
    if ended:
        talk.end()
    eventually(lambda: watcher.ids(second) == [1, 2, 3][: 3 if ended else 1])
    lose_what_came_since(redis, before)
    eventually(lambda: hub.current == first)
    eventually(lambda: watcher.closed)
    assert watcher.closed[:1] == LOST
    assert watcher.ids(first) == [1, 2, 3]
    back = watch()
    eventually(lambda: back.ids(first) == [1, 2, 3])
    assert back.closed == []


@pytest.fixture
def asked(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each time that somebody asks how runs stand: of how many."""
    found: list[int] = []
    peek = feed.peek

    def counting(places: Sequence[tuple[str, int]]) -> list[tuple[int, bytes | None]]:
        found.append(len(places))
        return peek(places)

    read_on = feed.read_on

    def counting_one(run_id: str, after: int, most: int) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        found.append(1)
        return read_on(run_id, after, most)

    monkeypatch.setattr(feed, "peek", counting)
    monkeypatch.setattr(feed, "read_on", counting_one)
    return found


def test_who_saw_no_more_than_is_kept_is_told_of_no_loss(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, asked: list[int], eventually: Eventually
) -> None:
    """It came after the loss and before the hub saw it, and waits meanwhile without asking all the time."""
    run_id = talk.begin()
    watcher = watch(run_id)
    before = dumped(redis, keys.run(run_id), keys.events(run_id))
    talk.say("two", "three")
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3] and watcher.viewer in hub._live(run_id))
    before_asking, began = len(asked), time.monotonic()
    restore(redis, before)
    comes = watch(run_id)
    eventually(lambda: watcher.closed)
    eventually(lambda: comes.viewer in hub._live(run_id))
    assert len(asked) - before_asking < 20 + 110 * (time.monotonic() - began)
    assert watcher.closed[:1] == LOST
    assert (comes.ids(run_id), comes.closed) == ([1], [])


def test_a_channel_begins_with_the_last_event_that_its_first_viewer_has(
    talk: Talk, watch: Watch, redis: Client, store: Store, interrupted: Interrupted, eventually: Eventually
) -> None:
    """Also when more was read than there was when it was asked: a loss of that would not be seen otherwise."""
    run_id = talk.begin()
    hub = Hub(redis, store, interrupted, Presence(redis, 10))
    interrupted.meanwhile = lambda: talk.say("two", "three")
    interrupted.halfway = True
    watcher = watch(run_id, to=hub)
    eventually(lambda: watcher.viewer in hub._live(run_id))
    channel = hub._channels[run_id]
    assert channel.cursor == watcher.viewer.cursor == 3
    assert b'"id":3' in channel.last.replace(b" ", b"")


def test_a_newcomer_where_nothing_is_kept_any_more_waits_for_the_next_run(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, asked: list[int], eventually: Eventually
) -> None:
    """One page has stayed open until its run's time was over; who comes then asks once, and sees the next run too."""
    first = talk.begin()
    talk.end()
    hub.notice()
    stays = watch()
    eventually(lambda: stays.ids(first) == [1, 2, 3] and stays.viewer in hub._live(first))
    redis.delete(keys.run(first), keys.events(first), keys.ENDED, keys.HISTORY)
    before_asking = len(asked)
    comes = watch(sees_a_run=False)
    eventually(lambda: comes.viewer in hub._live(first))
    assert len(asked) - before_asking < 20
    second = talk.begin()
    eventually(lambda: stays.ids(second) == comes.ids(second) == [1])
    assert stays.closed == comes.closed == []


def test_runs_that_have_ended_are_not_asked_for_again_and_again(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, asked: list[int], eventually: Eventually
) -> None:
    """However many are watched; only when Redis has been away each is looked at once."""
    runs = []
    for _ in range(3):
        runs.append(talk.begin())
        talk.end()
    watchers = [watch(run_id) for run_id in runs]
    eventually(lambda: all(one.viewer in hub._live(run) for one, run in zip(watchers, runs, strict=True)))
    del asked[:]
    eventually(lambda: len(asked) >= 2)
    assert set(asked) == {0}
    redis.client_kill_filter(_type="pubsub")
    eventually(lambda: 3 in asked)


@pytest.mark.parametrize("follows", [False, True])
def test_a_slow_viewer_whose_run_is_gone_does_not_go_on_with_a_hole(
    hub: Hub, talk: Talk, watch: Watch, redis: Client, eventually: Eventually, follows: bool
) -> None:
    """What it has not read yet is kept no longer, since the run's time is over: it is closed, and led nowhere."""
    first = talk.begin()
    hub.notice()
    slow = watch(None if follows else first, reads=False)
    eventually(lambda: slow.viewer in hub._live(first))
    line = "x" * 10_000
    for _ in range(2 * PENDING_BYTES // len(line)):
        talk.say(line)
    talk.end()
    second = talk.begin()
    eventually(lambda: hub.current == second and slow.viewer not in hub._live(first))
    redis.delete(keys.run(first), keys.events(first))
    slow.reading.set()
    eventually(lambda: slow.closed)
    assert slow.closed[0][0] == 1013
    assert slow.ids(second) == []


def test_who_catches_up_while_the_next_run_begins_misses_no_end(
    talk: Talk, watch: Watch, redis: Client, store: Store, interrupted: Interrupted, eventually: Eventually
) -> None:
    """A viewer about to go live when its run ends and another begins still gets the end of its own."""
    first = talk.begin()
    hub = Hub(redis, store, interrupted, Presence(redis, 10))
    hub.notice()
    runs = [first]

    def end_and_begin() -> None:
        talk.end()
        runs.append(talk.begin())
        hub.notice()

    interrupted.meanwhile = end_and_begin
    watcher = watch(cursor=1, to=hub)
    eventually(lambda: len(runs) == 2 and watcher.ids(runs[1]) == [1])
    assert watcher.ids(first) == [2, 3]


def test_who_leaves_while_catching_up_is_forgotten(
    talk: Talk, redis: Client, store: Store, interrupted: Interrupted
) -> None:
    """A viewer that is removed just before it would go live does not stay in memory."""
    hub = Hub(redis, store, interrupted, Presence(redis, 10))
    server, client = socket.socketpair()

    def come_and_go() -> weakref.ref[Outbox]:
        outbox = Outbox(server)
        viewer = Viewer(
            outbox=outbox,
            close=lambda *_: None,
            ping=lambda: None,
            run_id=talk.begin(),
            cursor=1,
            follows=False,
        )
        interrupted.meanwhile = lambda: hub.remove(viewer)
        hub.add(viewer)
        return weakref.ref(outbox)

    left = come_and_go()
    server.close()
    client.close()
    gc.collect()
    assert left() is None


@pytest.fixture
def two(redis: Client) -> tuple[Presence, Presence]:
    """The presence of two processes that may have five sockets together."""
    return Presence(redis, 5), Presence(redis, 5)


def test_the_limit_of_sockets_holds_over_all_processes(two: tuple[Presence, Presence]) -> None:
    """Each process counts the other's sockets; one that leaves makes room."""
    one, other = two
    assert [one.join() for _ in range(3)] == [True] * 3
    assert [other.join() for _ in range(3)] == [True, True, False]
    assert other.total == 5
    assert not one.join()
    other.leave()
    other.beat()
    assert one.join()
    one.beat()
    assert one.total == 5


def test_the_limit_holds_for_many_at_once(two: tuple[Presence, Presence]) -> None:
    """Of forty sockets that open at one moment, in two processes, five are let in."""
    gate, admitted = threading.Barrier(40), []

    def join(presence: Presence) -> None:
        gate.wait()
        admitted.append(presence.join())

    threads = [threading.Thread(target=join, args=(two[number % 2],)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 5
    two[0].beat()
    assert two[0].total == 5


def test_a_dead_process_is_forgotten(two: tuple[Presence, Presence], redis: Client) -> None:
    """A process that has not been heard of for a while does not use up the limit."""
    redis.hset(keys.VIEWERS, "1-dead", f"5 {int(time.time()) - 60}")
    redis.hset(keys.VIEWERS, "2-alive", f"4 {int(time.time())}")
    assert two[0].join()
    assert two[0].total == 5
    assert not two[0].join()
    assert redis.hexists(keys.VIEWERS, "2-alive")
    assert not redis.hexists(keys.VIEWERS, "1-dead")


def test_leaving_is_told_with_the_next_beat(two: tuple[Presence, Presence]) -> None:
    """A process knows its own count at once, the others after its beat."""
    one, other = two
    one.join()
    one.join()
    one.leave()
    assert one.total == 1
    one.beat()
    other.beat()
    assert other.total == 1


def test_a_hub_that_nobody_watches_notices_what_it_was_not_told(
    hub: Hub, talk: Talk, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of a run may be lost while there is no viewer; who comes when it has ended is shown it all the same."""
    first = talk.begin()
    eventually(lambda: hub.current == first)
    talk.end()
    monkeypatch.setattr(hub, "_relay", lambda _: None)
    second = talk.begin()
    talk.end()
    hub.notice()
    assert hub.current == second


def test_one_that_cannot_be_written_to_is_closed(
    hub: Hub, talk: Talk, watch: Watch, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has no room for its frame, say: it must not go on without that."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.viewer in hub._live(run_id))

    def offer(_outbox: Outbox, _frame: bytes) -> bool:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(hub_module, "offer_at_once", lambda outboxes, _: [False] * len(outboxes))
    monkeypatch.setattr(Outbox, "offer", offer)
    talk.say("lost otherwise")
    eventually(lambda: watcher.closed)
    assert watcher.closed[0][0] == 1013


@pytest.mark.parametrize(("error", "code"), [(OSError(errno.ENOBUFS, "No buffer space"), 1013), (KeyError("?"), 1011)])
def test_one_that_cannot_be_caught_up_is_closed(
    hub: Hub,
    talk: Talk,
    watch: Watch,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
) -> None:
    """Nobody would tell it any more otherwise, while its pings are answered."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.viewer in hub._live(run_id))

    def offer(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(Outbox, "offer", offer)
    monkeypatch.setattr(hub, "_relay", lambda _: None)
    talk.say("lost otherwise")
    hub._let_catch_up([watcher.viewer])
    eventually(lambda: watcher.closed)
    assert watcher.closed[0][0] == code


def test_what_is_delivered_while_redis_is_asked_is_no_loss(
    hub: Hub, talk: Talk, watch: Watch, feed: Feed, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids that the hub asks for are old when they come: its viewers are further than those by then."""
    run_id = talk.begin()
    watcher = watch(run_id)
    eventually(lambda: watcher.viewer in hub._live(run_id))
    ask, asked = feed.peek, threading.Event()

    def slowly(places: list[tuple[str, int]]) -> list[tuple[int, bytes | None]]:
        found = ask(places)
        if not asked.is_set():
            asked.set()
            talk.say("meanwhile")
            hub._read_on(hub._channels[run_id])
        return found

    monkeypatch.setattr(feed, "peek", slowly)
    eventually(asked.is_set)
    eventually(lambda: watcher.ids(run_id) == [1, 2])
    talk.say("after")
    eventually(lambda: watcher.ids(run_id) == [1, 2, 3])
    assert watcher.closed == []


@pytest.mark.parametrize("lost", [False, True])
def test_who_comes_back_is_not_let_go_with_those_before(
    hub: Hub, talk: Talk, watch: Watch, eventually: Eventually, lost: bool
) -> None:
    """Two threads find at once that a channel cannot go on: the second one finds a new channel of the same run."""
    run_id = talk.begin()
    first = watch(run_id)
    eventually(lambda: first.viewer in hub._live(run_id))
    channel = hub._channels[run_id]

    def let_go() -> None:
        if lost:
            hub._lose(channel, 0)
        else:
            hub._let_go(channel, hub_module.TOO_SLOW)

    let_go()
    again = watch(run_id, 1)
    eventually(lambda: again.viewer in hub._live(run_id))
    let_go()
    talk.say("one")
    eventually(lambda: again.ids(run_id) == [2])
    assert first.closed[:1] == (LOST if lost else [(1013, hub_module.TOO_SLOW)])
    assert again.closed == []
