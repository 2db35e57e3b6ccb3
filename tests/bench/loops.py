"""The hot loops, each in a process of its own in which instructions are counted: `python -m bench.loops NAME TIMES`.

Each does the same so many times, and beside it there is the least that anybody would have to do for the same.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any

VIEWERS = 100
CHUNK_LINES = 500
_RUN = "run-20260131-000000-abcdef"
_WORDS = b"sample 17: 40 of 97 reads of chr2 are aligned"
_TOLD = b"[a1/%06x] Submitted process > ALIGN (sample_17)"
_ENDED = (
    b"%d\ta1/%06x\tALIGN (sample_17)\tALIGN\tsample_17\tCOMPLETED\t0\t1\t%d\t1\t2\t3\t1016\t4931584\t1\t-\t-\t/work"
)


def deliver(deliveries: int) -> None:
    """A message of the channel, parsed and written to a hundred live viewers."""
    # Imported here, so that a loop that does not need it does not pay for it.
    from shared.feed import parse_message
    from web.hub import Channel, Hub, Viewer
    from web.outbox import Outbox

    nobody: Any = None  # neither Redis nor its readers are met on the way of a message that comes in order
    hub = Hub(nobody, nobody, nobody, nobody)
    hub.current = _RUN
    viewers = {Viewer(Outbox(sink), lambda *_: None, lambda: None, _RUN, cursor=0, follows=True) for sink in _sinks()}
    hub._channels[_RUN] = Channel(_RUN, 0, viewers)
    for number in range(1, deliveries // VIEWERS + 1):
        hub._relay([parse_message(b"%s %d %s" % (_RUN.encode(), number, _body()))])
    assert all(viewer.cursor == deliveries // VIEWERS for viewer in viewers)


def send(deliveries: int) -> None:
    """A frame sent to a hundred sockets, without waiting."""
    sinks, frame = _sinks(), _body()
    for _ in range(deliveries // VIEWERS):
        for sink in sinks:
            sink.send(frame, socket.MSG_DONTWAIT)


def take(lines: int) -> None:
    """Lines of the pipeline's own, from the bytes of a run's log to the bodies of events."""
    _take(lambda _: _log(_WORDS), lines)


def take_told(lines: int) -> None:
    """The same with lines by which Nextflow tells of a task, its submission and its end in turns."""
    each = CHUNK_LINES // 2

    def told(chunk: int) -> bytes:
        numbers = range(chunk * each, (chunk + 1) * each)
        return _stamped(words for n in numbers for words in (_TOLD % n, _ENDED % (n, n, n)))

    _take(told, lines)


def _take(log: Callable[[int], bytes], lines: int) -> None:
    import orjson

    from shared import times
    from shared.feed import Place
    from shared.runs import Run, new_session_id
    from worker.cluster import Chunk
    from worker.local_cluster import parse_records
    from worker.scribe import Scribe

    run = Run(run_id=_RUN, pipeline="bench", session_id=new_session_id(), queued_at=times.now())
    scribe = Scribe(run, Place(0, {}))
    for number, data in enumerate([log(number) for number in range(lines // CHUNK_LINES)]):
        records, used = parse_records(data)
        batch = scribe.take(Chunk(records, {"offset": used}, started=True), clock=float(number))
        assert batch is not None
        for event in batch.events:
            event.body()
        for _, task in batch.tasks:
            orjson.dumps(task)


def follow_pod(lines: int) -> None:
    """Lines of a pod as the API server streams them, up to records, many of them in a chunk."""
    _follow(lines, CHUNK_LINES)


def follow_pod_singly(lines: int) -> None:
    """The same, each line in a chunk of its own."""
    _follow(lines, 1)


def _follow(lines: int, of_chunk: int) -> None:
    from worker.kube.follower import Follower, Said, Source

    said: list[Said] = []
    seconds = (divmod(number // CHUNK_LINES, 60) for number in range(lines))
    log = [
        b"2026-01-31T00:%02d:%02d.%09dZ %s\n" % (minute % 60, second, number, _WORDS)
        for number, (minute, second) in enumerate(seconds)
    ]
    chunks = [b"".join(log[first : first + of_chunk]) for first in range(0, lines, of_chunk)]
    api: Any = SimpleNamespace(stream=lambda *_, **__: chunks)
    Follower(api, "runs", Source("head", "nextflow"), None, said.append)._read(last=False)
    assert sum(len(piece.records) for piece in said) == lines


def dump(lines: int) -> None:
    """The same lines split, decoded and written as JSON."""
    import orjson

    log = _log(_WORDS)
    for _ in range(lines // CHUNK_LINES):
        orjson.dumps([line.decode() for line in log.split(b"\n")])


def append(events: int) -> None:
    """An event of five lines appended to a feed, in a batch of its own."""
    from bench.fanout.publisher import log_event
    from ends import finish

    from shared import times
    from shared.feed import Batch, Feed
    from shared.lease import Leases
    from shared.redis_client import connect
    from shared.runs import Run, RunStatus, new_run_id, new_session_id
    from shared.settings import load
    from shared.store import Store

    redis, settings = connect(_redis_url()), load({"REDIS_URL": _redis_url()})
    run = Run(run_id=new_run_id(times.now()), pipeline="bench", session_id=new_session_id(), queued_at=times.now())
    store = Store(redis, settings)
    store.submit(run, "reject")
    held = Leases(redis).acquire(run.run_id)
    assert held is not None
    feed = Feed(redis, settings)
    for number in range(1, events + 1):
        place = {"cluster": {"offset": number}, "scribe": {"memory": {"line": number}}}
        feed.append(run.run_id, held.fence, Batch(number, place, [log_event(run.run_id, number)]))
    finish(store, run.run_id, RunStatus.SUCCEEDED)


def replay(events: int) -> None:
    """Kept events written to one that joins late, a page at a time."""
    from bench.growth_history import EVENTS, fill

    from shared.feed import Feed
    from shared.redis_client import connect
    from shared.settings import load
    from shared.store import Store
    from web.hub import Hub, Viewer
    from web.outbox import Outbox

    fill(_redis_url(), 1)
    redis, settings = connect(_redis_url()), load({"REDIS_URL": _redis_url()})
    store = Store(redis, settings)
    nobody: Any = None
    hub = Hub(redis, store, Feed(redis, settings), nobody)
    outbox, run_id = Outbox(_sinks()[0]), store.latest_id()
    for _ in range(events // EVENTS):
        viewer = Viewer(outbox, lambda *_: None, lambda: None, run_id, cursor=0, follows=False)
        last_id, _ = hub._write_kept(viewer)
        assert viewer.cursor == last_id > EVENTS


def publish(events: int) -> None:
    """The same frame published."""
    from bench.fanout.publisher import log_event

    from shared.redis_client import connect

    redis, body = connect(_redis_url()), log_event(_RUN, 1).body()
    for _ in range(events):
        redis.publish("bench", body)


def post(requests: int) -> None:
    """A run submitted, inside a web process; all but the first wait."""
    from bench.submit import WANTED

    client = _client()
    for _ in range(requests):
        assert client.post("/api/v1/pipeline/run", json=WANTED).status_code == 202


def status(requests: int) -> None:
    """The status of one that has ended asked for, inside a web process."""
    _get("/api/v1/pipeline/status", requests)


def history(requests: int) -> None:
    """A page of history asked for, inside a web process."""
    _get("/api/v1/pipeline/history?limit=100", requests)


def join(sockets: int) -> None:
    """A socket opened inside a web process by somebody who has all, up to the first frame, and closed again."""
    from bench.growth_history import fill
    from gevent import sleep
    from werkzeug.test import EnvironBuilder

    fill(_redis_url(), 100)
    app = _client().application
    handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "A" * 22 + "=="),
    ]
    builder = EnvironBuilder("/api/v1/pipeline/stream", headers=handshake)
    environ = builder.get_environ()
    for _ in range(sockets):
        here, there = socket.socketpair()
        with suppress(StopIteration):  # how flask-sock tells gunicorn that it has nothing to answer
            app(environ | {"gunicorn.socket": here}, lambda *_: None)
        with there:
            told = there.recv(65_536)
        assert (told[:12], told.count(b'{"id":')) == (b"HTTP/1.1 101", 1)
        sleep(0)  # the event loop sees that it is closed


def _get(path: str, requests: int) -> None:
    from bench.growth_history import fill

    fill(_redis_url(), 100)
    client = _client()
    for _ in range(requests):
        assert client.get(path).status_code == 200


def _client() -> Any:
    from bench.stage import settings_alone

    from shared.settings import load
    from web.app import create_app

    return create_app(load(settings_alone(REDIS_URL=_redis_url()))).test_client()


LOOPS: Mapping[str, Callable[[int], None]] = {
    loop.__name__: loop
    for loop in (
        deliver,
        send,
        take,
        take_told,
        follow_pod,
        follow_pod_singly,
        dump,
        append,
        replay,
        publish,
        post,
        status,
        history,
        join,
    )
}


def main(arguments: Sequence[str]) -> None:
    """One loop, so many times."""
    LOOPS[arguments[0]](int(arguments[1]))


def _sinks() -> list[socket.socket]:
    """Sockets that take all that is sent; nobody reads it, and what does not fit is dropped."""
    sinks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(VIEWERS)]
    for sink in sinks:
        sink.connect(_drain().getsockname())
    return sinks


@cache
def _drain() -> socket.socket:
    drain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    drain.bind(("127.0.0.1", 0))
    return drain


def _body() -> bytes:
    return b'{"type":"log","data":{"lines":["' + b"x" * 1_100 + b'"]},"timestamp":"2026-01-31T00:00:00Z"}'


def _log(text: bytes) -> bytes:
    return _stamped([text] * CHUNK_LINES)


def _stamped(texts: Iterable[bytes]) -> bytes:
    return b"".join(b"2026-01-31T00:00:00.000000Z stdout F %s\n" % text for text in texts)


def _redis_url() -> str:
    return os.environ["BENCH_REDIS"]


if __name__ == "__main__":
    main(sys.argv[1:])
