"""A connection after its handshake: what its client says is heard, tolerated or refused, and its end is told once."""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import gevent
import pytest
from simple_websocket import Server
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection as Protocol
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage

from web import connection as connection_module
from web.connection import OPTIONS, Connection, taken_over
from web.outbox import Outbox, text_frame


class Client:
    """The other side of a socket, which answers only when it is told to. The loop of our side turns while it waits."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self._protocol = Protocol(ConnectionType.CLIENT)
        wire.setblocking(False)

    def next(self) -> Event | None:
        """The next event that comes, None when the other side hangs up."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for event in self._protocol.events():
                return event
            gevent.sleep(0.001)
            try:
                data = self.wire.recv(4096)
            except BlockingIOError:
                continue
            if not data:
                return None
            self._protocol.receive_data(data)
        pytest.fail("nothing comes")

    def say(self, event: Event) -> None:
        """Send something."""
        self.wire.sendall(self._protocol.send(event))

    def read_to_the_end(self) -> bytes:
        """All that comes until the other side hangs up, read by a thread, since our side may wait for it."""
        read = bytearray()

        def read_all() -> None:
            self.wire.setblocking(True)
            while data := self.wire.recv(65_536):
                read.extend(data)

        reader = threading.Thread(target=read_all)
        reader.start()
        soon(lambda: not reader.is_alive())
        return bytes(read)


Pair = tuple[Connection, Client]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A connection and its client; who does not answer a goodbye is waited for a short time."""
    monkeypatch.setattr(connection_module, "_PULSE_SECONDS", 0.05)
    monkeypatch.setattr(connection_module, "_ANSWER_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    connection = Connection(ours, Protocol(ConnectionType.SERVER))
    yield connection, Client(theirs)
    theirs.close()
    soon(lambda: ours.fileno() < 0)


def soon(true: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        gevent.sleep(0.001)


def closed(client: Client) -> tuple[int, str | None]:
    """The code and the reason of the next event, after which nothing comes."""
    event = client.next()
    assert isinstance(event, CloseConnection)
    assert client.next() is None
    return event.code, event.reason


def test_who_answers_pings_stays(pair: Pair) -> None:
    """Each ping is answered before the next."""
    connection, client = pair
    for _ in range(3):
        connection.ping()
        ping = client.next()
        assert isinstance(ping, Ping)
        client.say(ping.response())
        gevent.sleep(0.05)


@pytest.mark.parametrize("before", [b"", b"\x81\x82\0\0\0\0ok"])
def test_a_pong_may_come_in_pieces_or_after_other_words(pair: Pair, before: bytes) -> None:
    """It is read as the protocol has it then."""
    connection, client = pair
    connection.ping()
    for piece in (before + b"\x8a", b"\x80abcd"):
        assert not connection._answered
        client.wire.sendall(piece)
        gevent.sleep(0.05)
    assert connection._answered


def test_what_looks_like_a_pong_in_the_middle_of_a_frame_is_none(pair: Pair) -> None:
    """It is the rest of a message that comes in two pieces: `aaxx` over and over, as its mask makes it."""
    connection, client = pair
    connection.ping()
    mask = bytes((0x8A ^ ord("a"), 0x80 ^ ord("a"), 0, 0))
    client.wire.sendall(b"\x81\xea" + mask + b"\x8a\x80xx" * 25)
    gevent.sleep(0.05)
    client.wire.sendall(b"\x8a\x80xx\x8a\x80")
    gevent.sleep(0.05)
    assert not connection._answered
    client.say(CloseConnection(1000, "bye"))
    assert isinstance(client.next(), Ping)
    assert closed(client) == (1000, "bye")


def test_who_does_not_answer_a_ping_is_closed(pair: Pair) -> None:
    """At the second ping, with a reason."""
    connection, client = pair
    connection.ping()
    connection.ping()
    assert isinstance(client.next(), Ping)
    assert closed(client) == (1008, "No answer to a ping.")


def test_a_ping_is_answered(pair: Pair) -> None:
    """With what it brought."""
    _, client = pair
    client.say(Ping(b"abc"))
    answer = client.next()
    assert answer is not None
    assert (type(answer).__name__, getattr(answer, "payload", None)) == ("Pong", b"abc")


@pytest.mark.parametrize("said", [Ping(b"abc"), TextMessage("", message_finished=False)])
def test_who_pings_or_says_nothing_again_and_again_is_closed(pair: Pair, said: Event) -> None:
    """A hundred times are answered, but no flood of it."""
    _, client = pair
    for _ in range(100):
        client.say(said)
        assert not isinstance(said, Ping) or not isinstance(client.next(), CloseConnection)
    for _ in range(300):  # more than are earned meanwhile, however slow it is here
        with suppress(OSError):  # it is closed by then
            client.say(said)
        gevent.sleep(0.001)
    while isinstance(event := client.next(), Pong):
        pass
    assert isinstance(event, CloseConnection)
    assert (event.code, (event.reason or "")[:17]) == (1008, "Too many messages")


def test_a_client_may_close(pair: Pair) -> None:
    """Its goodbye is answered, after what was offered before; whoever waits for the end is told, once."""
    connection, client = pair
    told: list[int] = []
    connection.at_end(lambda: told.append(1))
    connection.outbox.offer(text_frame(b"first"))
    client.say(CloseConnection(1000, "bye"))
    assert isinstance(client.next(), TextMessage)
    assert closed(client) == (1000, "bye")
    connection.close(1011, "too late")
    soon(lambda: told == [1])
    connection.at_end(lambda: told.append(2))
    assert told == [1, 2]
    with pytest.raises(OSError, match=r".*"):
        connection.outbox.offer(text_frame(b"late"))


def test_a_client_may_vanish(pair: Pair) -> None:
    """Without a goodbye, that is the end too."""
    connection, client = pair
    told: list[int] = []
    connection.at_end(lambda: told.append(1))
    client.wire.close()
    soon(lambda: told == [1])


def test_a_goodbye_comes_after_all_that_waits(pair: Pair) -> None:
    """A client that reads late gets each frame that was taken, and the reason after them, though it says nothing."""
    connection, client = pair
    count = 0
    while connection.outbox.offer(text_frame(b"x" * 10_000)):
        count += 1
    connection.close(1013, "too slow")
    read = client.read_to_the_end()
    goodbye = Protocol(ConnectionType.SERVER).send(CloseConnection(1013, "too slow"))
    assert read == text_frame(b"x" * 10_000) * count + goodbye


def test_a_goodbye_comes_after_a_frame_of_any_size(pair: Pair) -> None:
    """However much waits, the last word is taken, and a ping meanwhile does not end the connection."""
    connection, client = pair
    assert connection.outbox.offer(text_frame(b"x" * 3_000_000))
    client.say(Ping(b"abc"))
    gevent.sleep(0.05)
    connection.close(1013, "too slow")
    read = client.read_to_the_end()
    assert len(read) > 3_000_000
    assert read.endswith(Protocol(ConnectionType.SERVER).send(CloseConnection(1013, "too slow")))


@pytest.mark.parametrize("size", [20_000_000, 1_000_000])
def test_a_goodbye_reaches_who_talks_meanwhile(size: int) -> None:
    """What its client says when nobody listens any more must not make the kernel cut the connection.

    Some of it waits for the kernel to take it, or the kernel has all and only the client reads slowly.
    """
    with socket.create_server(("127.0.0.1", 0)) as door:
        theirs = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
    connection = Connection(ours, Protocol(ConnectionType.SERVER))
    assert connection.outbox.offer(text_frame(b"x" * size))
    connection.close(1013, "too slow")
    goodbye = Protocol(ConnectionType.SERVER).send(CloseConnection(1013, "too slow"))
    read = bytearray()

    def read_and_talk() -> None:
        while data := theirs.recv(65_536):
            said: Event = Pong() if not read else CloseConnection(1000)
            read.extend(data)
            if isinstance(said, Pong) or read.endswith(goodbye):
                theirs.sendall(Protocol(ConnectionType.CLIENT).send(said))

    reader = threading.Thread(target=read_and_talk)
    threading.Timer(0.2, reader.start).start()  # when our side waits for it already
    soon(lambda: ours.fileno() < 0)
    reader.join(10)
    theirs.close()
    assert len(read) > size
    assert read.endswith(goodbye)


def test_whoever_talks_on_after_a_goodbye_is_not_listened_to_for_ever(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it never answers it."""
    monkeypatch.setattr(connection_module, "_ANSWER_SECONDS", 60.0)
    connection, client = pair
    connection.close(1013, "too slow")
    assert isinstance(client.next(), CloseConnection)
    client.wire.sendall(Protocol(ConnectionType.CLIENT).send(Ping(b"abc")) * 200)
    soon(lambda: connection._ended)


def test_nobody_is_asked_for_a_sign_of_life_after_a_goodbye(pair: Pair) -> None:
    """The Close frame is the last."""
    connection, client = pair
    connection.close(1013, "too slow")
    connection.ping()
    assert client.read_to_the_end() == Protocol(ConnectionType.SERVER).send(CloseConnection(1013, "too slow"))


def test_a_goodbye_waits_for_who_reads_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it reads at all, though the kernel has taken all of it: an answer to an earlier ping may come late."""
    monkeypatch.setattr(connection_module, "_PULSE_SECONDS", 0.05)
    monkeypatch.setattr(connection_module, "_ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as door:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        theirs.connect(door.getsockname())
        ours, _ = door.accept()
    connection = Connection(ours, Protocol(ConnectionType.SERVER))
    assert connection.outbox.offer(text_frame(b"x" * 1_000_000))
    soon(lambda: connection.outbox.idle)
    connection.close(1013, "too slow")
    read = bytearray()
    while len(read) < 600_000:  # for three times as long as an answer is waited for
        read.extend(theirs.recv(30_000))
        gevent.sleep(0.05)
    theirs.sendall(Protocol(ConnectionType.CLIENT).send(Pong()))
    gevent.sleep(0.05)
    read.extend(Client(theirs).read_to_the_end())
    theirs.close()
    assert read.endswith(Protocol(ConnectionType.SERVER).send(CloseConnection(1013, "too slow")))


def test_a_goodbye_does_not_wait_for_who_reads_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the kernel has taken all of it."""
    monkeypatch.setattr(connection_module, "_READING_SECONDS", 0.2)
    connection, _ = pair
    assert connection.outbox.offer(text_frame(b"x" * 20_000))
    connection.close(1013, "too slow")
    soon(lambda: connection._ended)


def test_one_that_cannot_be_told_goodbye_ends_all_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has no room for the Close frame: its client sees the end of it and comes again."""
    connection, client = pair

    def send(*_: object, **__: object) -> None:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(Outbox, "send", send)
    connection.close(1013, "too slow")
    assert client.next() is None


def test_a_little_talk_is_tolerated(pair: Pair) -> None:
    """Nobody listens, but a few messages do no harm; in parts neither."""
    connection, client = pair
    for _ in range(50):
        client.say(TextMessage("hello"))
    client.say(TextMessage("hel", message_finished=False))
    client.say(TextMessage("lo"))
    gevent.sleep(0.05)
    connection.outbox.offer(text_frame(b"still here"))
    assert isinstance(client.next(), TextMessage)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([BytesMessage(b"\x00")], 1003),
        ([TextMessage("x" * 5000)], 1009),
        ([TextMessage("x" * 3000, message_finished=False), TextMessage("x" * 3000)], 1009),
        ([TextMessage("x")] * 121, 1008),
    ],
    ids=["binary", "large", "large in parts", "many"],
)
def test_more_than_a_little_talk_is_refused(pair: Pair, said: list[Event], code: int) -> None:
    """With the code of RFC 6455 for it."""
    _, client = pair
    for event in said:
        client.say(event)
    assert closed(client)[0] == code


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\x81\x05hello", b"\x89\xff", b"\x81\x82\0\0\0\0\xff\xff"])
def test_what_is_no_frame_is_refused(pair: Pair, sent: bytes) -> None:
    """With a Close frame that says why, and an end."""
    _, client = pair
    client.wire.sendall(sent)
    assert closed(client)[0] in (1002, 1007)


def test_a_mistake_of_ours_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is asked to come again, and the socket does not stay half alive."""
    connection, client = pair

    def stumble(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(Connection, "_take", stumble)
    client.say(TextMessage("x"))
    assert closed(client) == (1011, connection_module.FAILED)
    assert connection.outbox.idle


def test_it_is_taken_over_from_the_library() -> None:
    """What did the handshake starts no thread, and leaves the socket open when it would close it."""
    ours, theirs = socket.socketpair()
    speaker = WSConnection(ConnectionType.CLIENT)
    greeting = speaker.send(Request(host="here", target="/")).decode()
    fields = dict(line.split(": ", 1) for line in greeting.splitlines()[1:] if line)
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}
    before = threading.active_count()
    server = Server.accept({**headers, "werkzeug.socket": ours}, thread_class=OPTIONS["thread_class"])
    connection = taken_over(server)
    assert not server.connected
    assert threading.active_count() == before
    assert ours.fileno() < 0
    speaker.receive_data(theirs.recv(4096))
    assert [type(event) for event in speaker.events()] == [AcceptConnection]
    connection.outbox.offer(text_frame(b"hello"))
    assert theirs.recv(100) == text_frame(b"hello")
    theirs.close()
    soon(lambda: connection._ended)
