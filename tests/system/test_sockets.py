"""Sockets of the real service: each event once and in order, whoever comes and goes."""

import os
import random
import signal
import socket as sockets
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import websocket
from websocket import WebSocket, WebSocketBadStatusException, WebSocketTimeoutException

HANDSHAKE = (
    "GET /api/v1/pipeline/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def connect(service: Any, query: str = "", headers: dict[str, str] | None = None) -> WebSocket:
    url = f"ws://127.0.0.1:{service.port}/api/v1/pipeline/stream{query}"
    return websocket.create_connection(url, timeout=20, header=headers, suppress_origin=True)


def frame(socket: WebSocket, seconds: float = 20) -> dict[str, Any]:
    socket.settimeout(seconds)
    found: dict[str, Any] = orjson.loads(socket.recv())
    return found


def close_code(socket: WebSocket) -> int:
    """The code in the Close frame that the server sends next, whatever it sends before."""
    while True:
        received = socket.recv_frame()  # type: ignore[no-untyped-call]  # unlike `recv`, it does not answer: after a flood nobody may be there
        if received.opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(received.data[:2], "big")


class Visitor(threading.Thread):
    """Connects, stays a while, goes, and comes back with the last id that it saw, until the run is complete."""

    def __init__(self, service: Any, run_id: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._service, self._run_id, self._random = service, run_id, random.Random(seed)
        self.since = self.first = self._random.choice([0, 0, 1, 3])
        self.ids: list[int] = []
        self.visits = 0
        self.complete = False

    def run(self) -> None:
        while not self.complete:
            time.sleep(self._random.uniform(0, 0.5))
            self.visits += 1
            socket = connect(self._service, f"?run_id={self._run_id}&since={self.since}")
            self._listen(socket, time.monotonic() + self._random.uniform(0.1, 4))
            if self._random.random() < 0.5:
                socket.shutdown()  # type: ignore[no-untyped-call]  # without a Close frame
            else:
                socket.close()

    def _listen(self, socket: WebSocket, until: float) -> None:
        while not self.complete and time.monotonic() < until:
            try:
                event = frame(socket, 0.1)
            except WebSocketTimeoutException:
                continue
            if event["id"] is not None:
                self.ids.append(event["id"])
                self.since = event["id"]
                self.complete = event["type"] == "complete"


@pytest.mark.slow
def test_twenty_that_come_and_go_see_each_event_once(service: Any) -> None:
    """During the whole of `rnaseq-test`, each gets every event after its first `since`, once and in order."""
    run_id = service.submit("rnaseq-test")
    visitors = [Visitor(service, run_id, seed) for seed in range(20)]
    for visitor in visitors:
        visitor.start()
    info = service.ended(run_id, 300)
    for visitor in visitors:
        visitor.join(30)
    assert info["status"] == "succeeded"
    last = service.events(run_id)[-1]["id"]
    for visitor in visitors:
        assert visitor.ids == list(range(visitor.first + 1, last + 1))
        assert visitor.visits > 5


def test_a_socket_without_a_run_follows_from_run_to_run(service: Any) -> None:
    """It sees the end of one run and the whole of the next, each numbered from 1."""
    socket = connect(service)
    assert frame(socket)["id"] is None
    runs = [service.submit("hello", parameters={"fast": True}) for _ in range(2)]
    seen: dict[str, list[int]] = {run_id: [] for run_id in runs}
    ended: list[str] = []
    while len(ended) < 2:
        event = frame(socket, 60)
        if event["id"] is not None and event["run_id"] in seen:
            seen[event["run_id"]].append(event["id"])
            ended += [event["run_id"]] if event["type"] == "complete" else []
    socket.close()
    assert ended == runs
    for run_id in runs:
        assert seen[run_id] == list(range(1, len(service.events(run_id)) + 1))


def test_a_snapshot_comes_first_and_then_the_kept_past(service: Any) -> None:
    """The snapshot has no id and says how things stand; with `since=0` all kept events follow."""
    run_id = service.submit("hello", parameters={"fast": True})
    service.ended(run_id)
    socket = connect(service, f"?run_id={run_id}&since=0")
    snapshot = frame(socket)
    assert (snapshot["type"], snapshot["id"], snapshot["data"]["status"]) == ("status", None, "succeeded")
    kept = [frame(socket) for _ in range(snapshot["data"]["last_id"])]
    assert kept == service.events(run_id)
    socket.close()


def test_the_end_is_told_to_whoever_saw_more_than_there_is(service: Any) -> None:
    """Redis may have lost what a client saw: of a run that has ended it is told the end, and waits for nothing else."""
    run_id = service.submit("hello", parameters={"fast": True})
    service.ended(run_id)
    socket = connect(service, f"?run_id={run_id}&since=100000")
    assert frame(socket)["type"] == "status"
    assert frame(socket) == service.events(run_id)[-1]
    socket.close()


def test_refusals_come_before_the_upgrade(service: Any) -> None:
    """An unknown run, a bad query and a foreign origin are plain HTTP errors."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="

    def status(query: str, **headers: str) -> int:
        url = f"{service.url}/api/v1/pipeline/stream{query}"
        return httpx.get(url, headers=upgrade | headers).status_code

    assert status("?run_id=run-from-nowhere") == 404
    assert status("?run_id=") == 404
    assert status("?run_id=&since=5") == 404
    assert status("?since=minus") == 422
    assert status("?since=-1") == 422
    assert status("", Origin="https://evil.example") == 403
    assert status("", Host="evil.example") == 403
    with pytest.raises(WebSocketBadStatusException):
        connect(service, "?run_id=run-from-nowhere")


def test_what_a_socket_does_not_want_to_hear(service: Any) -> None:
    """A binary message, a huge one and a flood each end the socket with a code; a few words do not."""
    socket = connect(service)
    socket.send_binary(b"\x00\x01")
    assert close_code(socket) == 1003
    socket = connect(service)
    socket.send("x" * 100_000)
    assert close_code(socket) == 1009
    socket = connect(service)
    for _ in range(500):
        try:
            socket.send("hello")
        except OSError:
            break
    assert close_code(socket) == 1008
    socket = connect(service)
    frame(socket)
    socket.send("hello")
    time.sleep(0.3)
    socket.ping()
    socket.close()
    assert service.get("/healthz").status_code == 200


def holders(service: Any, opened: WebSocket) -> list[int]:
    """Pids of the service's processes that have the other end of a socket open."""
    assert opened.sock is not None
    port = opened.sock.getsockname()[1]
    # Columns of proc(5): our address, the other, …, the inode.
    entries = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {entry[9] for entry in entries if entry[2].endswith(f":{port:04X}")}
    found = []
    for pid in service.children("gunicorn"):
        for name in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(name.readlink()) in {f"socket:[{inode}]" for inode in inodes}:
                    found.append(pid)
    return found


def test_requests_wait_for_no_socket(service: Any) -> None:
    """Sockets live in processes of their own: while those stand still, requests are answered, and nothing is lost."""
    opened = [connect(service) for _ in range(30)]
    for socket in opened:
        frame(socket)
    holding = {pid for socket in opened for pid in holders(service, socket)}
    assert 0 < len(holding) < len(service.children("gunicorn")) - 1
    for pid in holding:
        os.kill(pid, signal.SIGSTOP)
    try:
        for path in ("/healthz", "/api/v1/pipeline/status"):
            assert service.get(path).status_code == 200
        run_id = service.submit("hello", parameters={"fast": True})
        service.ended(run_id)
    finally:
        for pid in holding:
            os.kill(pid, signal.SIGCONT)
    last = service.events(run_id)[-1]["id"]
    for socket in opened:
        ids: list[int] = []
        while len(ids) < last:
            event = frame(socket)
            ids += [event["id"]] if event["run_id"] == run_id and event["id"] is not None else []
        assert ids == list(range(1, last + 1))
        socket.close()


def test_more_than_can_be_handed_over_are_told_to_come_again(own_service: Any) -> None:
    """Those that hold sockets stand still: whoever finds no room in the queue is answered, the others wait in it."""
    opened, holding, wires = [], set[int](), []
    while not holding:
        opened.append(connect(own_service))
        holding.update(holders(own_service, opened[-1]))
    for pid in holding:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(600):
            wires.append(sockets.create_connection(("127.0.0.1", own_service.port), timeout=60))
            wires[-1].sendall(HANDSHAKE.encode())
        # The last to come is among those for whom there is no room.
        refusal = wires[-1].makefile("rb").read()
        assert own_service.get("/healthz").status_code == 200
    finally:
        for pid in holding:
            os.kill(pid, signal.SIGCONT)
    head, _, body = refusal.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in head
    assert orjson.loads(body)["status"] == 503
    answers = Counter(wire.recv(12) for wire in wires[:-1])
    assert answers.keys() == {b"HTTP/1.1 101", b"HTTP/1.1 503"}
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("way", ["in pieces", "after another request"])
def test_a_handshake_may_come_in_any_way(service: Any, way: str) -> None:
    """Also where its first bytes do not tell what it is."""
    with sockets.create_connection(("127.0.0.1", service.port), timeout=20) as wire:
        read = wire.makefile("rb")
        if way == "in pieces":
            for letter in HANDSHAKE:
                wire.sendall(letter.encode())
                time.sleep(0.001)
        else:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            length = 0
            while line := read.readline().strip():
                length = int(line.split()[1]) if line.lower().startswith(b"content-length:") else length
            assert b"alive" in read.read(length)
            wire.sendall(HANDSHAKE.encode())
        assert b"101" in read.readline()
        while read.readline().strip():
            pass
        first, size = read.read(2)
        assert first == 0x81
        size = int.from_bytes(read.read(2)) if size == 126 else size
        assert orjson.loads(read.read(size))["type"] == "status"


def test_a_hundred_at_once_lose_nothing(service: Any) -> None:
    """Of a hundred submissions at the same time one starts, all others wait in line, and each can be cancelled."""
    answers: list[dict[str, Any]] = []

    def submit() -> None:
        answers.append(service.client.submit({"pipeline": "hello", "parameters": {"fast": True}, "when_busy": "queue"}))

    service.wait(lambda: service.client.call("GET", "/active")["run"] is None, 60)
    threads = [threading.Thread(target=submit) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["run_id"] for answer in answers}) == 100
    assert [answer["status"] for answer in answers].count("queued") >= 99
    positions = sorted(answer["queue_position"] for answer in answers if "queue_position" in answer)
    assert positions == list(range(1, len(positions) + 1))
    waiting = [answer["run_id"] for answer in answers if answer["status"] == "queued"]
    for run_id in waiting:
        service.client.call("DELETE", "/cancel", params={"run_id": run_id})
    for answer in answers:
        assert service.ended(answer["run_id"])["status"] in ("cancelled", "succeeded")
        events = service.events(answer["run_id"])
        assert [event["type"] for event in events].count("complete") == 1


def test_a_stopping_service_says_so_and_the_limit_holds(own_service: Any) -> None:
    """Over the limit a socket is closed with 1013; when the service stops, all are closed with 1012."""
    own_service.stop()
    own_service.environment["MAX_WEBSOCKET_CONNECTIONS"] = "3"
    own_service.start()
    open_ones = [connect(own_service) for _ in range(3)]
    for socket in open_ones:
        frame(socket)
    assert close_code(connect(own_service)) == 1013
    assert own_service.stop() == 0
    assert [close_code(socket) for socket in open_ones] == [1012, 1012, 1012]


def test_whoever_comes_while_the_service_stops_is_told(own_service: Any) -> None:
    """A connection is refused, or made and then closed with 1012; none is cut off or left hanging between the two."""
    opened: list[WebSocket] = []
    troubles: list[Exception] = []
    stopped = threading.Event()

    def come_again_and_again() -> None:
        while not stopped.is_set():
            try:
                opened.append(connect(own_service))
            except ConnectionRefusedError:
                pass
            except (OSError, websocket.WebSocketException) as error:
                troubles.append(error)
            time.sleep(0.02)

    comer = threading.Thread(target=come_again_and_again)
    comer.start()
    time.sleep(1)
    own_service.stop()
    stopped.set()
    comer.join()
    assert len(opened) > 10
    assert troubles == []
    assert {close_code(socket) for socket in opened} == {1012}


def test_tokens_and_tickets(own_service: Any) -> None:
    """With AUTH_TOKENS nothing is told without one; a ticket opens one socket, once."""
    own_service.stop()
    own_service.environment["AUTH_TOKENS"] = "a-token-of-sixteen-characters"
    own_service.start()
    api = f"{own_service.url}/api/v1/pipeline"
    assert httpx.get(f"{api}/status").status_code == 401
    assert httpx.get(f"{api}/status", headers={"Authorization": "Bearer wrong"}).status_code == 401
    known = {"Authorization": "Bearer a-token-of-sixteen-characters"}
    assert httpx.get(f"{api}/status", headers=known).status_code == 200
    with pytest.raises(WebSocketBadStatusException):
        connect(own_service)
    frame(connect(own_service, headers=known))
    ticket = httpx.post(f"{api}/ticket", headers=known).json()["ticket"]
    frame(connect(own_service, f"?ticket={ticket}"))
    with pytest.raises(WebSocketBadStatusException):
        connect(own_service, f"?ticket={ticket}")
    assert own_service.nfctl("status").returncode == 0
    for log in (own_service.data_dir / "logs").iterdir():
        assert "a-token-of-sixteen" not in log.read_text()
        assert ticket not in log.read_text()
