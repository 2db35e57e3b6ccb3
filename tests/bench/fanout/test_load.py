"""The load client tells the truth: what a server loses, doubles or disorders is counted, and the dead are not alive."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bench.fanout import build
from bench.processes import said, talking

from nfctl.programs import ToolMissing
from web.outbox import text_frame

_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
_PING = b"\x89\x80"
_PONG = b"\x8a\x00"
_SINCE, _FROM_THE_BEGINNING = b"since=", b"since=0 "
_GOODBYE = b"\x88\x82"
_CLOSE = b"\x88\x02\x03\xe8"


def _event(number: int) -> bytes:
    return b'{"id":%d,"data":{"lines":[{"message":"stamp 1700000000000000 %d x","text":"%s"}]}}' % (
        number,
        number,
        b"y" * 200,
    )


def _push(*numbers: int) -> bytes:
    """One message of Centrifuge's protocol."""
    return text_frame(b"\n".join(b'{"push":{"channel":"run","pub":{"data":%s}}}' % _event(one) for one in numbers))


class Stub:
    """A server of one socket at a time: sends in small pieces what it is given, and an answer to each ping.

    Who comes with `since` is sent what is `later`, and whoever comes first is `cut` off when it has all.
    """

    def __init__(
        self,
        *sent: bytes,
        handshake: bytes = _UPGRADED,
        answer: bytes = _PONG,
        sockets: int = 1,
        later: Sequence[bytes] | None = None,
        cut: bool = False,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sent, self._answer = handshake + b"".join(sent), answer
        self._cut = cut
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""
        self._sockets = sockets
        # Who comes with the last event that there is has missed nothing.
        self._later = handshake + b"".join(sent[:1] if later is None else later)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listener:
            for _ in range(self._sockets):
                self._serve_one(self._listener.accept()[0])

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client may hang up at any moment
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = connection.recv(4096)
            self.heard += request
            sent = self._sent if _SINCE not in request or _FROM_THE_BEGINNING in request else self._later
            for start in range(0, len(sent), 97):
                connection.sendall(sent[start : start + 97])
            if self._cut:
                self._cut = False
                return
            while data := connection.recv(4096):
                self.heard += data
                if _PING in data:
                    connection.sendall(self._answer)
                if _GOODBYE in data:
                    return


@pytest.fixture(scope="module")
def program() -> Path:
    """The client. At home it may be missing, in CI it may not."""
    try:
        return build.load_program(print)
    except ToolMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def _report(program: Path, stub: Stub, tmp_path: Path, last: int, *flags: str) -> dict[str, Any]:
    command = [str(program), "-host", stub.host, *flags]
    with talking(command, os.environ, tmp_path / "client.log") as client:
        client.hear(20)
        client.tell(str(last))
        client.hear(20)
        client.tell("end")
        return client.hear(20)


def _counts(report: dict[str, Any]) -> tuple[int, ...]:
    return tuple(report[name] for name in ("deliveries", "lost", "doubled", "disordered", "alive"))


def test_all_is_well(program: Path, tmp_path: Path) -> None:
    """What is no event, and what comes in pieces, does not disturb the count."""
    stub = Stub(text_frame(b'{"id":null,"type":"status"}'), *(text_frame(_event(number)) for number in range(7, 60)))
    report = _report(program, stub, tmp_path, 59, "-first", "7")
    assert _counts(report) == (53, 0, 0, 0, 1)
    assert report["p50_ms"] > 1e6, "the stamp is of 2023"


def test_each_fault_is_counted(program: Path, tmp_path: Path) -> None:
    """3 and 6 are lost, 2 comes twice, and 4 comes late."""
    stub = Stub(*(text_frame(_event(number)) for number in (1, 2, 2, 5, 4)))
    assert _counts(_report(program, stub, tmp_path, 6)) == (5, 2, 1, 1, 1)


def test_the_closed_and_the_mute_are_not_alive(program: Path, tmp_path: Path) -> None:
    """Neither a socket that the server closes, nor one that answers no ping, nor one whose frames are cut."""
    closed = _report(program, Stub(text_frame(_event(1)), _CLOSE), tmp_path, 2)
    assert (_counts(closed), closed["trouble"]) == ((1, 1, 0, 0, 0), "the server closed the socket")
    mute = _report(program, Stub(text_frame(_event(1)), answer=b""), tmp_path, 1)
    assert _counts(mute) == (1, 0, 0, 0, 0)
    cut = _report(program, Stub(text_frame(_event(1))[:-9], text_frame(_event(2))), tmp_path, 2)
    assert (cut["deliveries"], cut["lost"], cut["alive"]) == (0, 2, 0)


def test_a_refusal_is_told(program: Path, tmp_path: Path) -> None:
    """A socket that never opened can lose nothing, and the server's words are kept."""
    report = _report(program, Stub(handshake=b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), tmp_path, 1)
    assert (report["opened"], report["refused"], report["lost"]) == (0, 1, 0)
    assert report["trouble"] == "refused: HTTP/1.1 503 Service Unavailable"


def test_centrifuge_is_understood(program: Path, tmp_path: Path) -> None:
    """Its greeting opens the socket, a message may carry several events, and its ping is answered."""
    greeting = text_frame(b'{"id":1,"connect":{"client":"c","ping":25,"pong":true}}')
    stub = Stub(greeting, _push(1, 2), text_frame(b"{}"), _push(3))
    assert _counts(_report(program, stub, tmp_path, 3, "-centrifuge")) == (3, 0, 0, 0, 1)
    assert b'"connect":{}' in stub.heard
    assert stub.heard.count(b"\x81\x82\x00\x00\x00\x00{}") == 1


def _standing(first: int, last: int | None) -> bytes:
    return text_frame(b'{"id":null,"data":{"first_id":%d,"last_id":%s}}' % (first, str(last or "null").encode()))


def _joined(program: Path, tmp_path: Path, *sent: bytes, flags: Sequence[str] = ()) -> dict[str, Any]:
    """What became of one that joins a server which tells it this each time."""
    stub = Stub(*sent, sockets=1_000)
    command = [str(program), "-host", stub.host, "-path", "/?", "-joiners", "1", "-stay", "50ms", *flags]
    with talking(command, os.environ, tmp_path / "joiners.log") as joiner:
        joiner.hear(20)
        time.sleep(0.5)
        joiner.tell("end")
        found = joiner.hear(20)
    assert _FROM_THE_BEGINNING in stub.heard
    return found


def test_joiners_see_what_is_kept_and_what_comes(program: Path, tmp_path: Path) -> None:
    """They come again and again, and what went meanwhile, and is said to be gone, is not missed."""
    kept = [text_frame(_event(number)) for number in (3, 4)]
    found = _joined(program, tmp_path, _standing(3, 8), *kept, _standing(8, 8), text_frame(_event(8)))
    assert found["joined"] > 1
    assert 6 <= found["replayed"] <= 6 * found["joined"]
    assert (found["wrong"], found["failure"]) == (0, "")


def test_what_joiners_miss_is_counted(program: Path, tmp_path: Path) -> None:
    """An event that comes twice, or one before its time."""
    twice = _joined(program, tmp_path, _standing(1, 2), *(text_frame(_event(number)) for number in (1, 1, 2)))
    early = _joined(program, tmp_path, _standing(1, 2), text_frame(_event(2)))
    assert twice["wrong"] > 0
    assert early["wrong"] > 0


def test_a_joiner_that_is_not_served_says_so(program: Path, tmp_path: Path) -> None:
    """Closed before it has all, or never told how things stand."""
    closed = _joined(program, tmp_path, _standing(1, 2), text_frame(_event(1)), _CLOSE)
    assert closed["failure"].startswith("after event 1 of 2: the server closed the socket")
    untold = _joined(program, tmp_path, text_frame(_event(1)))
    assert untold["failure"].startswith("the first frame does not tell")
    gone = _joined(program, tmp_path, _standing(2, 2), text_frame(_event(2)), flags=["-whole"])
    assert gone["failure"] == "events before 2 are said to be gone"


def _ended(number: int) -> bytes:
    return text_frame(b'{"id":%d,"type":"complete","data":{}}' % number)


def _watched(program: Path, *sent: bytes, **stubs: Any) -> dict[str, Any]:
    """What became of one that watches a server which tells it this."""
    stub = Stub(*sent, **stubs)
    found: dict[str, Any] = json.loads(said([str(program), "-host", stub.host, "-watchers", "1"], os.environ, 20)[0])
    return found


def test_watchers_see_a_run_to_its_end(program: Path) -> None:
    """From the first event that is kept, and with the times of its first and its last line."""
    found = _watched(program, _standing(3, 4), *(text_frame(_event(number)) for number in (3, 4)), _ended(5))
    assert (found["first"], found["last"]) == (1.7e15, 1.7e15)
    assert (found["told"], found["cut"], found["wrong"], found["failure"], found["lines"]) == (0, 0, 0, "", 2)
    twice = _watched(program, _standing(1, 2), *(text_frame(_event(number)) for number in (1, 1)), _ended(2))
    assert twice["wrong"] == 2, "the event, and its line"


def test_watchers_that_are_closed_come_again(program: Path) -> None:
    """Those that are told so, and those that are cut off; another reason is a failure."""
    away = _watched(program, _standing(1, 2), b"\x88\x02" + (1013).to_bytes(2, "big"), sockets=3)
    assert away["told"] == 3
    assert "connection refused" in away["failure"] or "reset" in away["failure"], "there is nobody any more"
    later = [_standing(1, 3), text_frame(_event(2)), _ended(3)]
    cut = _watched(program, _standing(1, 3), text_frame(_event(1)), later=later, cut=True, sockets=2)
    assert (cut["told"], cut["cut"], cut["wrong"], cut["failure"], cut["lines"]) == (0, 1, 0, "", 2)
    failed = _watched(program, _standing(1, 2), b"\x88\x02" + (1011).to_bytes(2, "big"))
    assert failed["failure"].startswith("the server closed the socket: 1011")


def test_how_old_lines_are_is_read_from_standard_input(program: Path) -> None:
    """All but the first that are not to count; one that comes late is told."""
    now = time.time()
    lines = [f"2026 stdout F stamp {now - age:.6f} {number} x" for number, age in enumerate((9, 2, 2, 2))]
    found = _read(program, ["nothing of that kind", *lines], 4, "-skipped", "1")
    assert (found["lines"], found["wrong"]) == (4, 0)
    assert 1_900 < found["p50_ms"] <= found["p99_ms"] < 8_000
    assert _read(program, [lines[1], lines[0]], 3)["wrong"] == 1


def _read(program: Path, lines: list[str], wanted: int, *flags: str) -> dict[str, Any]:
    command = [str(program), "-lines", str(wanted), *flags]
    done = subprocess.run(
        command, input="\n".join([*lines, ""]), capture_output=True, text=True, timeout=20, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
