"""The processes of the web server: some answer requests, the others hold the sockets that are open.

All clients come to one port. A process that answers requests looks at the first bytes of each connection, and
hands one that asks for the stream, unread, to the others: through a queue in the kernel that those take from
when they have time. So no request waits for ten thousand sockets to be written to.
"""

import os
import socket
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from web.connection import PlainSocket
from web.door import Door, LastServed
from web.hub import Hub
from web.problems import PROBLEM_TYPE, RETRY_SECONDS, problem
from web.status import stream_url

_REQUEST = f"GET {stream_url(None)}".encode()
_FIRST_BYTES_SECONDS = 2.0
_HANDOVER_SECONDS = 5.0
# Who answers requests hands over until it is told to end, which may be a moment later than here.
_LATE_SECONDS = 1.5
# All of a stop must take less than gunicorn's graceful_timeout.
_HANDSHAKES_SECONDS = 1.5
_CLOSING_SECONDS = 5.0
_MOST_REQUEST_BYTES = 65_536
_BYTE = b"\0"  # nothing can be sent with a message that is empty


class Handover:
    """A queue of connections, made before the processes are, for all of them."""

    def __init__(self) -> None:
        self._ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def giving(self) -> socket.socket:
        """The end where connections go in, opened for one process."""
        return self._ends[0].dup()

    def taking(self) -> socket.socket:
        """The end where they come out, opened for one process."""
        return self._ends[1].dup()


class _Arrivals(LastServed):
    """Serves connections that come out of a queue, one at a time, so that whoever has least to do takes most."""

    def do_read(self) -> tuple[socket.socket, Any] | None:  # type: ignore[override]  # None: there is nothing
        while True:
            try:
                said, found, _, _ = socket.recv_fds(self.socket, len(_BYTE), 1)
            except BlockingIOError:  # another process was quicker
                return None
            if not said:  # nobody is left to hand anything over
                return None
            for number in found:
                client = socket.socket(fileno=number)
                with suppress(OSError):  # it has gone meanwhile
                    return client, client.getpeername()
                client.close()


class WebWorker(GeventWorker):  # type: ignore[misc]
    """One process of either kind.

    `holds_sockets` is set before it is forked; without a `handover` all processes hold the sockets they get.
    """

    holds_sockets = False
    handover: Handover | None = None
    _giving: socket.socket | None = None
    # Where the queue is full for a moment, one may wait for room at a time.
    _turn = BoundedSemaphore()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle: set[socket.socket] = set()

    def run(self) -> None:
        """Serve until told to stop, and then until all open sockets are closed, or for some seconds."""
        if self.handover is None:
            super().run()
        elif self.holds_sockets:
            self._run_arrivals(self.handover)
        else:
            self._giving = self.handover.giving()
            super().run()
        self._wait_for_sockets()

    def server_class(self, listener: Any, *, spawn: Pool, **_: Any) -> StreamServer:
        """What gunicorn serves a port with."""
        return Door(listener, handle=partial(self.handle, listener), spawn=spawn)

    def handle(self, listener: Any, client: socket.socket, address: Any) -> None:
        """Serve one connection, or hand it over."""
        if self._giving is None or not self._let_go(self._giving, client):
            try:
                super().handle(listener, client, address)
            finally:
                self._idle.discard(client)

    def handle_request(self, listener_name: Any, request: Any, client: socket.socket, address: Any) -> None:
        """Answer one request; what its client may ask later on the same connection is not waited for at a stop."""
        self._idle.discard(client)
        super().handle_request(listener_name, request, client, address)
        self._idle.add(client)

    def notify(self) -> None:
        """Tell gunicorn that this process is alive, which it does each second, also while it waits for the last."""
        super().notify()
        if not self.alive:
            for client in self._idle:
                with suppress(OSError):  # it has gone
                    _end_if_silent(client)

    def _let_go(self, giving: socket.socket, client: socket.socket) -> bool:
        """Whether the connection is not to be served here: others have it now, or it is closed."""
        first = _first_bytes(client)
        if first == _REQUEST and self.alive:
            with client:
                # When nobody takes it for long, its client had better come again than wait here with all the others.
                if not gevent.with_timeout(_HANDOVER_SECONDS, self._give, giving, client, timeout_value=False):
                    _turn_away(client)
            return True
        if first:
            return False
        if self.alive:
            self._idle.add(client)
            return False
        client.close()  # it has said nothing, and nobody will be here to listen
        return True

    def _give(self, giving: socket.socket, client: socket.socket) -> bool:
        with self._turn:
            if not self.alive:  # soon nobody takes any more
                return False
            socket.send_fds(giving, [_BYTE], [client.fileno()])
        return True

    def _run_arrivals(self, handover: Handover) -> None:
        taking = handover.taking()
        taking.setblocking(False)
        # Or clients could connect to a listener that nobody accepts from; all that is wanted of it is where this is.
        here = self.sockets[0].getsockname()
        for listener in self.sockets:
            listener.close()
        handle = partial(self.handle, SimpleNamespace(getsockname=lambda: here))
        pool = Pool(self.worker_connections)
        server = _Arrivals(taking, handle=handle, spawn=pool)
        server.start()
        while self.alive:
            self.notify()
            gevent.sleep(1.0)
        gevent.sleep(_LATE_SECONDS)
        server.close()
        self.notify()
        pool.join(timeout=_HANDSHAKES_SECONDS)

    def _wait_for_sockets(self) -> None:
        hub: Hub = self.wsgi.extensions["hub"]
        deadline = time.monotonic() + _CLOSING_SECONDS
        while not hub.finished and time.monotonic() < deadline:
            gevent.sleep(0.05)


def _end_if_silent(client: socket.socket) -> None:
    """Whoever waits for something to be said on this connection finds its end, unless something has come already.

    The kernel's own way: gevent's would have a reader that waits fail at once, and what comes just then be lost.
    """
    with PlainSocket(fileno=os.dup(client.fileno())) as same:
        try:
            same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            same.shutdown(socket.SHUT_RD)


def _turn_away(client: socket.socket) -> None:
    """Answer a request that is still unread: without reading it, its client would see no answer but a reset."""
    answer = problem(503, "No socket can be opened just now. Try again in a few seconds.")
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_TYPE}\r\nRetry-After: {RETRY_SECONDS}\r\n"
    body = answer.get_data()
    with suppress(OSError):
        client.setblocking(False)  # it is all there, or its client is not worth waiting for
        client.recv(_MOST_REQUEST_BYTES)
        client.send(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def _first_bytes(client: socket.socket) -> bytes:
    """The first bytes that come, as many as a request for the stream begins with; they stay where they are.

    A client that sends less than that at once is served where it is, as is one that asks later on a connection.
    """
    with suppress(OSError):
        peek = partial(client.recv, len(_REQUEST), socket.MSG_PEEK)
        found: bytes = gevent.with_timeout(_FIRST_BYTES_SECONDS, peek, timeout_value=b"")
        return found
    return b""
