"""The writing side of one socket: never blocks the hub, never cuts a frame, never grows without end."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat

from gevent import monkey

PENDING_BYTES = 1_048_576
# Of all sockets of a process: where so much is pending, nothing more is taken for one that is behind.
ALL_PENDING_BYTES = 67_108_864
STALL_SECONDS = 20.0
_PULSE_SECONDS = 1.0
_NOT_NOW = -1
# One for all, so that a frame for thousands of sockets takes it once in a while. A plain lock, also under gevent, whose
# own costs as much as the rest of a write. So nothing that could let another greenlet go on may be done while it is
# held: no waiting, no starting of threads, no logging.
_lock = monkey.get_original("_thread", "allocate_lock")()


class _Pending:
    """What is pending in all outboxes, in bytes."""

    total = 0


class Stalled(Exception):
    """The client has read nothing for `STALL_SECONDS`, is gone, or must not go on because something is missing."""


def text_frame(payload: bytes) -> bytes:
    """One unmasked, final, uncompressed text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


class Outbox:
    """Writes to one socket, from any thread, what the hub and the WebSocket protocol have to say.

    What the kernel does not take at once is kept here, in order, and written by a thread that lives only as
    long as there is something left. The socket must not be closed before `end` was called.
    """

    __slots__ = ("__weakref__", "_direct", "_draining", "_ended", "_pending", "_sock", "_stopped", "_waiter")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        # The descriptor, while a frame may be written to it at once.
        self._direct = sock.fileno()
        self._pending = bytearray()
        self._waiter: threading.Event | None = None
        self._draining = False
        self._stopped = False
        self._ended = False

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Take these bytes though frames are pending: for the protocol's own small ones.

        Raises OSError when ended, or when far too much is pending, unless they are the last.
        """
        with _lock:
            if self._ended:
                raise BrokenPipeError
            if not last and len(self._pending) > 2 * PENDING_BYTES:  # a client that pings and reads nothing
                raise BrokenPipeError
            left = self._write(data)
        if left:
            self._start_draining()

    def offer(self, frame: bytes, most: int = PENDING_BYTES) -> bool:
        """Write a frame now or keep it for later; False, and nothing taken, when too much is pending, here or in all.

        A frame of any size is taken when nothing is pending.

        Raises OSError once frames are stopped or the client is gone.
        """
        with _lock:
            if self._stopped or self._ended:
                raise BrokenPipeError
            pending = len(self._pending)
            if pending and (pending + len(frame) > most or _Pending.total > ALL_PENDING_BYTES):
                return False
            left = self._write(frame)
        if left:
            self._start_draining()
        return True

    @property
    def idle(self) -> bool:
        """Whether the kernel has taken all that was written."""
        return not self._pending

    def stop_frames(self) -> None:
        """Take no more frames: the socket is about to be closed, and the Close frame must be the last."""
        with _lock:
            self._stopped = True
            self._direct = _NOT_NOW

    def flush(self) -> None:
        """Wait until nothing is pending. Raises Stalled when the client stopped reading, or is gone."""
        while True:
            with _lock:
                if self._ended:
                    raise Stalled
                if not self._pending:
                    return
                waiter = self._waiter
            if waiter is None:
                waiter = self._waiter = threading.Event()
                continue  # it may have been drained before there was anybody to tell
            waiter.wait(_PULSE_SECONDS)

    def end(self) -> None:
        """Take nothing any more."""
        with _lock:
            self._ended = True
            self._direct = _NOT_NOW
            _Pending.total -= len(self._pending)
            self._pending.clear()
        self._tell_waiter()

    def _write(self, data: bytes) -> bool:
        """Write, and keep what is not taken; returns whether somebody must begin to drain."""
        if not self._pending:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            if sent == len(data):
                return False
            data = data[sent:]
        return self._keep(data)

    def _keep(self, data: bytes) -> bool:
        self._direct = _NOT_NOW
        self._pending += data
        _Pending.total += len(data)
        starts, self._draining = not self._draining, True
        return starts

    def _start_draining(self) -> None:
        threading.Thread(target=self._drain, name="outbox", daemon=True).start()

    def _tell_waiter(self) -> None:
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    def _drain(self) -> None:
        moved_at = time.monotonic()
        while time.monotonic() - moved_at < STALL_SECONDS:
            self._wait_writable()
            with _lock:
                if self._ended:
                    return
                try:
                    with memoryview(self._pending) as view:
                        written = self._sock.send(view)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError:
                    break
                moved_at = time.monotonic()
                del self._pending[:written]
                _Pending.total -= written
                drained = not self._pending
                self._draining = not drained
                if drained and not self._stopped:
                    self._direct = self._sock.fileno()
            if drained:
                self._tell_waiter()
                return
        self.end()
        self._hang_up()

    def _wait_writable(self) -> None:
        descriptor = self._sock.fileno()
        if descriptor < 0:  # it was ended, and closed, before this thread came to anything
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.poll(_PULSE_SECONDS * 1000)

    def _hang_up(self) -> None:
        with suppress(OSError):  # the other side was quicker
            self._sock.shutdown(socket.SHUT_RDWR)


def offer_at_once(outboxes: Sequence[Outbox], frame: bytes) -> list[bool]:
    """Write a frame to each of these that has nothing pending; returns which took it, and the others took none of it.

    It costs less than half of as many offers, because the interpreter itself goes through the sockets.
    """
    taken: list[int] = []
    with _lock:
        descriptors = iter([outbox._direct for outbox in outboxes])
        while len(taken) < len(outboxes):
            try:
                taken.extend(map(os.write, descriptors, repeat(frame)))
            except OSError:  # that one takes nothing now; the next may
                taken.append(0)
        if taken.count(len(frame)) == len(taken):
            return [True] * len(taken)
        cut = [(outbox, frame[sent:]) for outbox, sent in zip(outboxes, taken, strict=True) if 0 < sent < len(frame)]
        idle = [outbox for outbox, left in cut if outbox._keep(left)]
    for outbox in idle:
        outbox._start_draining()
    return list(map(bool, taken))
