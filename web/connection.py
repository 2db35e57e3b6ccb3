"""One WebSocket after its handshake: hears what its client says, pings it, and closes it.

Ten thousand of them wait for almost nothing, so none has a thread: the event loop starts one when the client
says something, for as long as that takes.
"""

import fcntl
import logging
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import monkey
from simple_websocket import Server
from wsproto.connection import Connection as Protocol
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from web.outbox import Outbox, Stalled

FAILED = "The server made a mistake. Connect again with since=<last id>."
# What a client may say is little: nobody listens, so anything large or frequent is a mistake or worse.
_MOST_BYTES = 4_096
_MESSAGES_A_MINUTE = 120
_READ_BYTES = 4_096
_READS_AT_END = 64
# A client that answers a goodbye does so at once, when it has read all that was on its way before it.
_ANSWER_SECONDS = 3.0
# Who reads slowly makes the kernel's queue shorter now and then only.
_READING_SECONDS = 10.0
_GOODBYE_SECONDS = 60.0
_PULSE_SECONDS = 0.5
_PING = b"\x89\x00"  # RFC 6455, section 5.5.2
_PONG = b"\x8a\x80"  # section 5.5.3; from a client a mask of four bytes follows
_PONG_BYTES = 6
_INT_BYTES = struct.calcsize("i")
# gevent's own would wait, and keeps two watchers.
PlainSocket: type[socket.socket] = monkey.get_original("socket", "socket")
_log = logging.getLogger(__name__)


class Connection:
    """A socket that is open until its client or `close` ends it; what comes in between goes to its `outbox`."""

    __slots__ = (
        "__weakref__",
        "_allowance",
        "_answered",
        "_at_end",
        "_closing",
        "_ended",
        "_goodbye",
        "_heard_at",
        "_protocol",
        "_silent",
        "_size",
        "_sock",
        "_watcher",
        "outbox",
    )

    def __init__(self, sock: socket.socket, protocol: Protocol) -> None:
        self.outbox = Outbox(sock)
        self._sock = sock
        self._protocol = protocol
        self._answered = True
        # Until it has said anything but that, so that no frame can have come in part.
        self._silent = True
        self._closing = self._ended = False
        self._size = 0
        self._allowance, self._heard_at = float(_MESSAGES_A_MINUTE), time.monotonic()
        self._at_end: list[Callable[[], None]] = []
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1)
        self._watcher.start(self._readable)
        self._goodbye: _Goodbye | None = None

    def at_end(self, call: Callable[[], None]) -> None:
        """Have this called when the socket is closed, in a thread that may wait; at once when it is closed already."""
        if self._ended:
            call()
        else:
            self._at_end.append(call)

    def ping(self) -> None:
        """Ask the client for a sign of life; one that gave none since it was last asked is closed."""
        # It would wait behind all that; one that reads nothing at all is found otherwise.
        if self._closing or not self.outbox.idle:
            return
        if not self._answered:
            self.close(CloseReason.POLICY_VIOLATION, "No answer to a ping.")
            return
        self._answered = False
        with suppress(OSError):  # it is closed
            self.outbox.send(_PING)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, after all that was offered before; again: no change. Returns at once.

        The connection ends when the client has answered, or some seconds after it could have, see `_Goodbye`: one that
        is closed while its client still talks is reset by the kernel, and what is on its way then, the goodbye too,
        never comes.
        """
        self.outbox.stop_frames()
        try:
            self._say_goodbye(CloseConnection(code, reason))
        except LocalProtocolError:  # it is closing, or closed
            return
        except OSError:  # the kernel has no room for a goodbye, or the client is gone
            self._hear_no_more()
            return
        self._goodbye = _Goodbye(self._sock, self.outbox, self._hear_no_more)

    def refuse(self, code: int, reason: str) -> None:
        """Say goodbye to a client that has no business here, and wait for no answer."""
        self.close(code, reason)
        self._hear_no_more()

    def _say_goodbye(self, event: CloseConnection) -> None:
        goodbye = self._protocol.send(event)
        self._closing = True
        self.outbox.send(goodbye, last=True)

    def _hear_no_more(self) -> None:
        """Have the connection read to its end, at once."""
        with suppress(OSError):  # it has ended
            self._sock.shutdown(socket.SHUT_RD)

    def _readable(self) -> None:
        """Called by the event loop itself, where nothing may wait.

        Of thousands most will only ever answer pings, and that is seen here.
        """
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # the client is gone
            data = b""
        if self._silent and len(data) == _PONG_BYTES and data.startswith(_PONG):
            self._answered = True
            return
        self._silent = False
        self._watcher.stop()
        gevent.spawn(self._hear, data)

    def _hear(self, data: bytes) -> None:
        try:
            goes_on = self._take_in(data)
        except OSError:  # the client is gone
            goes_on = False
        except Exception:  # after the handshake no HTTP answer can be given, so the socket must say it
            _log.exception("A socket failed.", extra={"action": "socket.failed"})
            self.close(CloseReason.INTERNAL_ERROR, FAILED)
            goes_on = False
        if goes_on:
            self._watcher.start(self._readable)
        else:
            self._end()

    def _take_in(self, data: bytes) -> bool:
        """Take in what has come; returns whether more may. Raises OSError."""
        if not data:
            return False
        with suppress(LocalProtocolError):  # it came after a goodbye
            self._protocol.receive_data(data)
            take = self._take_at_end if self._closing else self._take
            return all(take(event) for event in self._protocol.events())
        return False

    def _take_at_end(self, event: Event) -> bool:
        """Nothing counts any more but the answer to our goodbye, and how much there is of all else."""
        self._allowance -= 1
        return self._allowance >= 0 and not isinstance(event, CloseConnection)

    def _take(self, event: Event) -> bool:
        match event:
            case Ping() if self._tolerates_one_more():
                with suppress(OSError):  # it is gone, or reads nothing of all that waits already
                    self.outbox.send(self._protocol.send(event.response()))
            case Pong() if not self._answered or self._tolerates_one_more():  # nobody asked for more than one
                self._answered = True
            case CloseConnection():
                self.outbox.stop_frames()
                self._say_goodbye(event.response())
                return False
            case BytesMessage():
                self.refuse(CloseReason.UNSUPPORTED_DATA, "This socket takes no binary messages.")
            case TextMessage():
                self._take_text(event)
        return True

    def _take_text(self, part: TextMessage) -> None:
        """What the client says is not wanted, but a little is tolerated."""
        self._size += len(part.data)
        if self._size > _MOST_BYTES:
            self.refuse(CloseReason.MESSAGE_TOO_BIG, "Message is too big; this socket listens to none.")
        elif self._tolerates_one_more() and part.message_finished:
            self._size = 0

    def _tolerates_one_more(self) -> bool:
        """Whether one more ping or part of a message is within the allowance; the socket is closed otherwise."""
        now = time.monotonic()
        earned = (now - self._heard_at) * _MESSAGES_A_MINUTE / 60
        self._allowance, self._heard_at = min(_MESSAGES_A_MINUTE, self._allowance + earned) - 1, now
        if self._allowance < 0:
            self.refuse(CloseReason.POLICY_VIOLATION, "Too many messages; this socket listens to none.")
        return self._allowance >= 0

    def _end(self) -> None:
        if self._closing:  # the goodbye, and what was offered before it, is still on its way to a slow reader
            with suppress(Stalled):
                self.outbox.flush()
        self.outbox.end()
        self._watcher.close()
        if self._goodbye is not None:
            self._goodbye.timer.close()
        # With anything unread the kernel would reset the connection, and the goodbye might never be seen.
        with suppress(OSError):
            for _ in range(_READS_AT_END):
                if not self._sock.recv(_READ_BYTES):
                    break
        self._sock.close()
        self._ended = True
        for call in self._at_end:
            call()
        self._at_end.clear()


class _Goodbye:
    """Waits for a client's answer to a goodbye, and calls `give_up` when none comes.

    It may take some seconds, once the client has read all that was on its way before; somewhat more, if it reads
    nothing any more; and the reading of what the kernel has, a minute.
    """

    def __init__(self, sock: socket.socket, outbox: Outbox, give_up: Callable[[], None]) -> None:
        self._sock = sock
        self._outbox = outbox
        self._give_up = give_up
        self._unread = 0
        self._quiet = self._waited = 0.0
        self.timer: Any = gevent.get_hub().loop.timer(_PULSE_SECONDS, _PULSE_SECONDS)
        self.timer.start(self._look)

    def _look(self) -> None:
        if not self._outbox.idle:  # who reads nothing of that is found by the outbox
            return
        unread = self._in_kernel()
        moves, self._unread = unread < self._unread, unread
        self._quiet = 0.0 if moves else self._quiet + _PULSE_SECONDS
        self._waited += _PULSE_SECONDS
        if self._quiet >= (_READING_SECONDS if unread else _ANSWER_SECONDS) or self._waited >= _GOODBYE_SECONDS:
            self._give_up()

    def _in_kernel(self) -> int:
        """How many bytes the kernel has of what was written, which the other side's has not taken yet."""
        try:
            return int.from_bytes(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(_INT_BYTES)), sys.byteorder)
        except (OSError, ValueError):  # it cannot tell, or is closed
            return 0


class _NoThread:
    """What simple-websocket reads a socket in: nothing, since `taken_over` sockets are read here."""

    def __init__(self, target: Callable[[], None]) -> None:  # noqa: ARG002 - the library names it
        self.name = ""

    def start(self) -> None:
        """Do nothing."""


OPTIONS = {"thread_class": _NoThread}
"""What flask-sock's sockets must be made with to be taken over."""


def taken_over(ws: Server) -> Connection:
    """The connection of a socket whose handshake is done; who did that has nothing more to do with it.

    simple-websocket keeps a parser, two threads and all of the request for each socket, five times what is left here.
    """
    protocol, sock = ws.ws.connection, ws.sock
    if protocol is None or sock is None:
        raise ValueError("The handshake is not done.")
    ws.connected = False  # flask-sock closes it otherwise, when the request is done
    return Connection(PlainSocket(fileno=sock.detach()), protocol)
