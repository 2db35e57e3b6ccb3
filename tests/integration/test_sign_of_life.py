"""A client that gives no sign of life is closed, and one that does stays."""

import socket
from collections.abc import Iterator

import pytest
from simple_websocket import Server
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request

from web.outbox import Outbox
from web.sockets import _ping


class Client:
    """The other side of a socket, which answers only when it is told to."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._wire.settimeout(10)

    def greeting(self) -> dict[str, object]:
        """The environment of a WSGI request for a socket, as simple-websocket reads it."""
        data = self._connection.send(Request(host="here", target="/")).decode()
        fields = dict(line.split(": ", 1) for line in data.splitlines()[1:] if line)
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}
        return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", **headers}

    def next(self) -> Event:
        """The next event that comes."""
        while True:
            for event in self._connection.events():
                return event
            self._connection.receive_data(self._wire.recv(4096))

    def answer(self, ping: Ping) -> None:
        """Send the pong."""
        self._wire.sendall(self._connection.send(ping.response()))


@pytest.fixture
def pair() -> Iterator[tuple[Server, Outbox, Client]]:
    """A connected server side, its outbox, and its client."""
    ours, theirs = socket.socketpair()
    client = Client(theirs)
    server = Server.accept({**client.greeting(), "werkzeug.socket": ours})
    outbox = Outbox(server.sock)
    server.sock = outbox  # type: ignore[assignment] # it stands in for a socket
    assert isinstance(client.next(), AcceptConnection)
    yield server, outbox, client
    theirs.close()
    server.thread.join(10)  # type: ignore[attr-defined] # it is a plain thread
    ours.close()


def test_who_answers_stays(pair: tuple[Server, Outbox, Client]) -> None:
    """Each ping is answered before the next."""
    server, outbox, client = pair
    for _ in range(3):
        _ping(server, outbox)
        ping = client.next()
        assert isinstance(ping, Ping)
        client.answer(ping)
        while not server.pong_received:
            pass
    assert server.connected


def test_who_does_not_answer_is_closed(pair: tuple[Server, Outbox, Client]) -> None:
    """At the second ping, with a reason."""
    server, outbox, client = pair
    _ping(server, outbox)
    _ping(server, outbox)
    assert isinstance(client.next(), Ping)
    closed = client.next()
    assert isinstance(closed, CloseConnection)
    assert (closed.code, closed.reason) == (1008, "No answer to a ping.")
    assert not server.connected
