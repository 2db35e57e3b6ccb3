"""The outbox: no frame is cut, no memory without end, and nobody waits for a slow reader."""

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from web import outbox as outbox_module
from web.outbox import PENDING_BYTES, Outbox, Stalled, offer_at_once, text_frame


def decoded(data: bytes) -> list[str]:
    """The text messages in these bytes, as a WebSocket library reads them."""
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(data)
    messages, parts = [], []
    for event in connection.events():
        assert isinstance(event, TextMessage)
        parts.append(event.data)
        if event.message_finished:
            messages.append("".join(parts))
            parts = []
    assert not parts
    return messages


@dataclass
class Pair:
    """An outbox and the client at the other end, with small buffers between."""

    outbox: Outbox
    client: socket.socket
    read: bytearray = field(default_factory=bytearray)

    def read_until(self, size: int) -> bytes:
        """Read until that many bytes have come in all."""
        while len(self.read) < size:
            data = self.client.recv(65_536)
            assert data
            self.read += data
        return bytes(self.read)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with a_pair() as made:
        yield made


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    with ExitStack() as stack:
        yield [stack.enter_context(a_pair()) for _ in range(5)]


@contextmanager
def a_pair() -> Iterator[Pair]:
    server, client = socket.socketpair()
    client.settimeout(20)
    for end in (server, client):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made = Pair(Outbox(server), client)
    yield made
    made.outbox.end()
    client.close()
    for thread in threading.enumerate():
        if thread.name == "outbox":
            thread.join(10)
    server.close()


def fill(pair: Pair, payload: bytes) -> list[bytes]:
    """Offer frames until one is refused; returns those that were taken."""
    frames: list[bytes] = []
    while pair.outbox.offer(frame := text_frame(payload % len(frames))):
        frames.append(frame)
    return frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_frame_is_read_by_a_websocket_library(size: int) -> None:
    """Each of the three lengths of a frame is written as the protocol has it."""
    assert decoded(text_frame(b"x" * size)) == ["x" * size]


@given(st.lists(st.text(), max_size=5))
def test_frames_follow_one_another(texts: list[str]) -> None:
    """Any texts, one frame after the other, are read as they were written."""
    assert decoded(b"".join(text_frame(text.encode()) for text in texts)) == texts


def test_what_is_offered_arrives_in_order(pair: Pair) -> None:
    """A reader that keeps up gets each frame at once."""
    frames = [text_frame(b"message %d" % number) for number in range(10)]
    assert all(pair.outbox.offer(frame) for frame in frames)
    wanted = b"".join(frames)
    assert pair.read_until(len(wanted)) == wanted


def test_a_slow_reader_is_refused_and_its_frames_stay_whole(pair: Pair) -> None:
    """What a slow reader leaves is bounded; more is refused, and what was taken arrives whole and in order."""
    frames = fill(pair, b"%d " + b"x" * 3000)
    size = sum(map(len, frames))
    assert PENDING_BYTES < size < PENDING_BYTES + 200_000
    assert not pair.outbox.offer(text_frame(b"x" * 10_000))
    assert decoded(pair.read_until(size)) == [f"{number} " + "x" * 3000 for number in range(len(frames))]
    pair.outbox.flush()
    assert pair.outbox.offer(text_frame(b"again"))
    assert pair.read_until(size + 7)[size:] == text_frame(b"again")


def test_all_that_is_behind_have_one_bound(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many read nothing, they have so much memory together; one that reads is served, and room comes back."""
    monkeypatch.setattr(outbox_module, "ALL_PENDING_BYTES", 2 * PENDING_BYTES)
    *stalled, reads = pairs
    taken = [sum(map(len, fill(pair, b"%d " + b"x" * 3000))) for pair in stalled]
    assert min(taken[:2]) > PENDING_BYTES
    assert 2 * PENDING_BYTES < sum(taken) < 2 * PENDING_BYTES + 400_000
    for number in range(300):
        frame = text_frame(b"%d" % number + b"x" * 3000)
        assert reads.outbox.offer(frame)
        reads.read.clear()
        assert reads.read_until(len(frame)) == frame
        reads.outbox.flush()
    stalled[0].outbox.end()
    stalled[1].read_until(taken[1])
    stalled[1].outbox.flush()
    assert sum(map(len, fill(stalled[3], b"%d " + b"x" * 3000))) > PENDING_BYTES / 2


def test_one_large_frame_is_taken_when_nothing_waits(pair: Pair) -> None:
    """A frame larger than the bound is possible, or its reader could never get on."""
    frame = text_frame(b"x" * (2 * PENDING_BYTES))
    assert pair.outbox.offer(frame)
    assert not pair.outbox.offer(text_frame(b"y"))
    assert pair.read_until(len(frame)) == frame


def test_many_writers_cut_no_frame(pair: Pair) -> None:
    """Frames of several threads do not mix, while the library's own go in between."""

    def write(writer: int) -> None:
        for number in range(50):
            frame = text_frame(f"{writer} {number} {'x' * 2000}".encode())
            if number % 2:
                pair.outbox.send(frame)
            while not number % 2 and not pair.outbox.offer(frame):
                pair.outbox.flush()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in writers:
        thread.start()
    total = sum(len(text_frame(f"{w} {n} {'x' * 2000}".encode())) for w in range(4) for n in range(50))
    messages = [message.split(" ")[:2] for message in decoded(pair.read_until(total))]
    for thread in writers:
        thread.join()
    for writer in range(4):
        assert [number for who, number in messages if who == str(writer)] == [str(n) for n in range(50)]


def test_a_frame_for_many_reaches_each_that_is_free(pairs: list[Pair]) -> None:
    """Whoever has something pending, takes nothing more or is gone gets none of it, and costs the others nothing."""
    free, full, stopped, gone, last = pairs
    pending = fill(full, b"%d " + b"x" * 3000)
    stopped.outbox.stop_frames()
    gone.client.close()
    frame = text_frame(b"for all")
    taken = offer_at_once([pair.outbox for pair in pairs], frame)
    assert taken == [True, False, False, False, True]
    assert [pair.read_until(len(frame)) for pair in (free, last)] == [frame, frame]
    size = sum(map(len, pending))
    assert full.read_until(size) == b"".join(pending)
    full.outbox.flush()
    assert offer_at_once([full.outbox], frame) == [True]
    assert full.read_until(size + len(frame))[size:] == frame


def test_a_frame_for_many_that_the_kernel_cuts_arrives_whole(pairs: list[Pair]) -> None:
    """What does not fit at once comes later, before all that is offered then."""
    large, small = text_frame(b"x" * 300_000), text_frame(b"next")
    outboxes = [pair.outbox for pair in pairs]
    assert offer_at_once(outboxes, large) == [True] * 5
    assert offer_at_once(outboxes, small) == [False] * 5
    assert all(outbox.offer(small) for outbox in outboxes)
    for pair in pairs:
        assert pair.read_until(len(large) + len(small)) == large + small


def test_a_frame_for_many_is_offered_to_none_that_has_no_room(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses one of them: none of it is taken there, and the others are not told twice."""
    refused = pairs[2].outbox._direct

    def write(descriptor: int, frame: bytes) -> int:
        if descriptor == refused:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return os.write(descriptor, frame)

    monkeypatch.setattr(outbox_module, "os", SimpleNamespace(write=write))
    frame = text_frame(b"for all")
    assert offer_at_once([pair.outbox for pair in pairs], frame) == [True, True, False, True, True]
    assert pairs[2].outbox.offer(frame)
    for pair in pairs:
        assert pair.outbox.offer(text_frame(b"next"))
        assert decoded(pair.read_until(len(frame) + 6)) == ["for all", "next"]


def test_an_ended_outbox_is_written_to_by_nobody(pair: Pair) -> None:
    """Its descriptor may be another's by then."""
    number = pair.outbox._direct
    pair.outbox.end()
    pair.outbox._sock.close()
    others = socket.socketpair()
    assert number in [other.fileno() for other in others]
    assert offer_at_once([pair.outbox], text_frame(b"not for you")) == [False]
    assert select.select(others, [], [], 0)[0] == []
    for other in others:
        other.close()


class Held(Outbox):
    """An outbox that writes nothing of what is pending until it is let go."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.let_go = threading.Event()

    def _wait_writable(self) -> None:
        self.let_go.wait()
        super()._wait_writable()


def test_nothing_overtakes_what_is_pending(pair: Pair) -> None:
    """When the client reads again, a new frame still goes behind those that wait for their thread."""
    held = pair.outbox = Held(pair.outbox._sock)
    frames = fill(pair, b"%d " + b"x" * 3000)
    pair.client.setblocking(False)
    with suppress(BlockingIOError):
        while data := pair.client.recv(65_536):
            pair.read += data
    pair.client.settimeout(20)
    held.send(b"\x88\x00")
    held.let_go.set()
    wanted = b"".join(frames) + b"\x88\x00"
    assert pair.read_until(len(wanted)) == wanted


def test_the_last_word_comes_after_the_frames(pair: Pair) -> None:
    """Once frames are stopped none is taken, but the library's Close frame is, behind all that waits."""
    frames = fill(pair, b"%d " + b"x" * 3000)
    pair.outbox.stop_frames()
    with pytest.raises(OSError, match=r".*"):
        pair.outbox.offer(text_frame(b"late"))
    pair.outbox.send(b"\x88\x00")
    size = sum(map(len, frames)) + 2
    assert pair.read_until(size).endswith(b"\x88\x00")


def test_a_reader_that_stands_still_is_hung_up_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads nothing for the time of a stall is given up, and the thread that waits for it is told."""
    monkeypatch.setattr(outbox_module, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(outbox_module, "_PULSE_SECONDS", 0.05)
    fill(pair, b"%d " + b"x" * 3000)
    with pytest.raises(Stalled):
        pair.outbox.flush()
    with pytest.raises(OSError, match=r".*"):
        pair.outbox.offer(text_frame(b"late"))
    while pair.client.recv(65_536):
        pass


def test_a_reader_that_leaves_is_noticed(pair: Pair) -> None:
    """When the client goes with frames pending, whoever waits for it is told."""
    fill(pair, b"%d " + b"x" * 3000)
    pair.client.close()
    with pytest.raises(Stalled):
        pair.outbox.flush()


def test_an_ended_outbox_takes_nothing(pair: Pair) -> None:
    """After the end, everything is refused and nothing is kept."""
    fill(pair, b"%d " + b"x" * 3000)
    pair.outbox.end()
    for take in (pair.outbox.offer, pair.outbox.send):
        with pytest.raises(OSError, match=r".*"):
            take(b"late")
    with pytest.raises(Stalled):
        pair.outbox.flush()


def test_a_closed_socket_ends_the_writer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may close the socket while frames are pending; the thread that writes them ends without an error."""
    monkeypatch.setattr(outbox_module, "_PULSE_SECONDS", 0.05)
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    fill(pair, b"%d " + b"x" * 3000)
    (writer,) = [thread for thread in threading.enumerate() if thread.name == "outbox"]
    pair.outbox._sock.close()
    pair.client.recv(65_536)
    writer.join(10)
    assert not writer.is_alive()
    assert raised == []
    pair.outbox._drain()  # as one that comes to it only now
