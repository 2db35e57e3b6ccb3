"""The web server's port: nobody who was let in is cut off, whether the service stops or replaces its processes."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import gevent.event
import httpx
import pytest
from ports import free_port

from web import door, processes

T = Callable[..., object]
_ASK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_COMERS = 3
_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps somebody out without a word")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """gunicorn as the service starts it, without a Redis, and its port."""
    port = free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "DATA_DIR": str(tmp_path),
    }
    with (tmp_path / "web.log").open("wb") as log:
        command = [sys.executable, "-m", "gunicorn", "-c", "python:web.gunicorn_conf", "web.wsgi:app"]
        command += ["--keep-alive", "60"]  # what closes a connection before is no long silence
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def listening() -> gevent.socket.socket:
    """A port for a server of this process."""
    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def _is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except httpx.ConnectError:
        return False


def test_whoever_is_let_in_is_answered_though_the_service_stops(
    web: tuple[subprocess.Popen[bytes], int], eventually: T
) -> None:
    """Each connection is refused or answered; none is reset."""
    process, port = web
    eventually(lambda: _is_healthy(port))
    answers: list[bytes] = []
    troubles: list[Exception] = []

    def come_again_and_again() -> None:
        while process.poll() is None:
            try:
                with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as client:
                    client.sendall(_ASK)
                    answers.append(client.recv(12))
            except ConnectionRefusedError:
                time.sleep(0.001)
            except OSError as error:
                troubles.append(error)

    comers = [threading.Thread(target=come_again_and_again) for _ in range(_COMERS)]
    for comer in comers:
        comer.start()
    eventually(lambda: len(answers) > 10 * _COMERS)
    process.terminate()
    for comer in comers:
        comer.join()
    assert set(answers) == {b"HTTP/1.1 200"}
    assert troubles == []


def test_a_connection_that_waits_for_nothing_does_not_hold_up_a_stop(
    web: tuple[subprocess.Popen[bytes], int], eventually: T, tmp_path: Path
) -> None:
    """It is closed while a request that is at work is still waited for, and answered; so is one that never asked."""
    process, port = web
    eventually(lambda: _is_healthy(port))
    body = b'{"pipeline": "hello"}'
    head = b"POST /api/v1/pipeline/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with (
        closing(HTTPConnection("127.0.0.1", port, timeout=20)) as idle,
        closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as silent,
        closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as busy,
    ):
        busy.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        idle.request("GET", "/healthz")
        assert b"alive" in idle.getresponse().read()
        time.sleep(1.2 * processes._FIRST_BYTES_SECONDS)
        process.terminate()
        assert idle.sock.recv(100) == b""
        assert silent.recv(100) == b""
        busy.sendall(body)
        assert busy.recv(4096).startswith(b"HTTP/1.1 503")  # Redis is away
    process.wait(30)
    assert "Socket error" not in (tmp_path / "web.log").read_text()


def test_what_has_come_on_a_connection_is_no_silence() -> None:
    """Though a reader that waited for it has not been told yet; after it the connection can be ended."""
    ours, theirs = gevent.socket.socketpair()
    read = gevent.spawn(lambda: [ours.recv(10), ours.recv(10), ours.recv(10)])
    gevent.idle()
    theirs.sendall(b"a request")
    processes._end_if_silent(ours)
    gevent.sleep(0.05)
    theirs.sendall(b" and more")
    gevent.sleep(0.05)
    processes._end_if_silent(ours)
    assert read.get(timeout=10) == [b"a request", b" and more", b""]
    ours.close()
    theirs.close()


@_on_linux
def test_a_reload_leaves_the_port_open(web: tuple[subprocess.Popen[bytes], int], eventually: T) -> None:
    """The processes that are replaced close the port for themselves alone."""
    process, port = web
    eventually(lambda: _is_healthy(port))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    old = children.read_text().split()
    process.send_signal(signal.SIGHUP)
    eventually(lambda: len(new := children.read_text().split()) == len(old) and not {*old} & {*new}, 40)
    for _ in range(20):
        assert _is_healthy(port)


@_on_linux
def test_when_nobody_serves_the_port_after_this_none_is_let_in_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks while the last waiting ones are served is not answered, and refused when the port is closed."""
    served = []

    def serve(client: socket.socket, _: object) -> None:
        served.append(client.recv(10))
        client.close()

    half_open = gevent.event.Event()
    monkeypatch.setattr(gevent, "sleep", lambda _: half_open.wait())
    listener = listening()
    address = listener.getsockname()
    server = door.Door(listener, handle=serve)
    with socket.create_connection(address) as early:  # the kernel has let it in, and nobody has seen it yet
        early.sendall(b"early")
        closer = gevent.spawn(server.close)
        gevent.idle()
        with socket.socket() as late:
            late.settimeout(0.1)
            with pytest.raises(TimeoutError):
                late.connect(address)
        half_open.set()
        closer.join()
        gevent.idle()
    assert served == [b"early"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_a_port_is_closed_though_nobody_more_can_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left, say; gunicorn would not wait for the requests at work otherwise."""

    def fails(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    listener = listening()
    monkeypatch.setattr(door.Door, "do_read", fails)
    server = door.Door(listener, handle=lambda *_: None)
    server.close()
    assert server.closed


def test_who_was_handed_over_is_served_before_the_queue_is_closed() -> None:
    """Also behind one that has gone meanwhile; nobody else would take them."""
    handover = processes.Handover()
    giving, taking = handover.giving(), handover.taking()
    taking.setblocking(False)
    served: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            if number == 1:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            accepted, _ = listener.accept()
            with accepted:
                socket.send_fds(giving, [b"\0"], [accepted.fileno()])
    server = processes._Arrivals(taking, handle=lambda client, _: served.append(client.recv(10)))
    server.close()
    gevent.sleep(0)
    for client in clients:
        client.close()
    assert served == [b"0", b"2"]
