"""What nobody would send: requests made from the OpenAPI document, and frames made of anything."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_process import Service

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

_CASES = 2_000
_STREAM = "/api/v1/pipeline/stream"


@pytest.fixture(scope="module")
def fuzzed(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose Nextflow ends at once: the doors are tried here, and strange names must reach no network."""
    directory = tmp_path_factory.mktemp("fuzz")
    nextflow = directory / "nextflow"
    nextflow.write_text("#!/bin/sh\necho 'nextflow version 24.10.0.5928'\n")
    nextflow.chmod(0o755)
    running = Service(directory / "data", NEXTFLOW_BIN=str(nextflow), RATE_LIMIT="1000000/minute")
    running.start()
    yield running
    running.kill()


def complaints(service: Service) -> list[str]:
    """What the service's processes logged as errors."""
    found = []
    for log in (service.data_dir / "logs").glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if '"level":"error"' in line or line.startswith("Traceback"):
                found.append(f"{log.name}: {line}")
    return found


def test_no_request_that_the_document_allows_or_forbids_surprises(fuzzed: Service, tmp_path: Path) -> None:
    """All checks of schemathesis: no 5xx, every answer as documented, good data taken and bad data refused."""
    # What is too long for the web server is refused with 414, which schemathesis does not expect of bad data.
    expected = "expected-statuses = [400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 429]"
    (tmp_path / "schemathesis.toml").write_text(f"[checks.negative_data_rejection]\n{expected}\n")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{fuzzed.url}/openapi.json"]
    command += ["--checks", "all", "--max-examples", "200", "--continue-on-failure", "--seed", "20261124", "--no-color"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout
    counted = re.search(r"(\d+) generated", ended.stdout)
    assert counted is not None, ended.stdout
    assert int(counted[1]) >= _CASES
    assert complaints(fuzzed) == []
    assert fuzzed.get("/health").status_code == 200


FRAMES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda fin, opcode, data: websocket.ABNF(fin, 0, 0, 0, opcode, 1, data).format(),
        st.integers(0, 1),
        st.sampled_from(list(websocket.ABNF.OPCODES)),
        st.binary(max_size=130),
    ),
    # Lengths that are not kept, bits that are reserved, frames without a mask.
    st.builds(
        lambda first, length, rest: bytes((first, length)) + rest,
        st.integers(0, 255),
        st.integers(0, 255),
        st.binary(max_size=20),
    ),
)

_TEXT, _BINARY, _CLOSE, _PING = (
    websocket.ABNF.OPCODE_TEXT,
    websocket.ABNF.OPCODE_BINARY,
    websocket.ABNF.OPCODE_CLOSE,
    websocket.ABNF.OPCODE_PING,
)


def frame(opcode: int, data: bytes = b"", *, fin: int = 1, reserved: int = 0, mask: int = 1) -> bytes:
    """A frame as the protocol wants it, but for what is given."""
    made = bytes(websocket.ABNF(fin, 0, 0, 0, _TEXT, mask, data).format())
    return bytes((fin << 7 | reserved << 4 | opcode,)) + made[1:]


# What RFC 6455 has a server close for, and what this one listens to none of.
ENDINGS = st.one_of(
    st.builds(lambda data: frame(_CLOSE, b"\x03\xe8" + data.encode()), st.text(max_size=20)),
    st.builds(lambda opcode: frame(opcode), st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])),
    st.builds(lambda reserved: frame(_TEXT, b"x", reserved=reserved), st.integers(1, 7)),
    st.builds(lambda data: frame(_TEXT, data, mask=0), st.binary(max_size=20)),
    st.builds(lambda opcode: frame(opcode, fin=0), st.sampled_from([_CLOSE, _PING])),
    st.builds(lambda size: frame(_PING, bytes(size)), st.integers(126, 300)),
    st.builds(lambda data: frame(_BINARY, data), st.binary(max_size=130)),
    st.builds(lambda size: frame(_TEXT, b"x" * size), st.integers(4_097, 20_000)),
    st.just(frame(_TEXT, b"\xff\xfe")),
    st.just(frame(websocket.ABNF.OPCODE_CONT, b"x")),
)
HARMLESS = st.one_of(
    st.builds(lambda text: frame(_TEXT, text.encode()), st.text(max_size=100)),
    st.builds(lambda opcode, data: frame(opcode, data), st.sampled_from([_PING, 10]), st.binary(max_size=125)),
)


def is_closed(wire: socket.socket) -> bool:
    """Whether the other side ends the connection, before it is silent for as long as the socket's timeout."""
    try:
        while wire.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:  # not in order, but closed
        return True
    return True


class Beside:
    """A viewer that reads all the while, and so answers pings."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=1)
        self._frames: list[dict[str, Any]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def ids(self, run_id: str) -> list[int]:
        """The ids of a run's events that have come."""
        return [frame["id"] for frame in list(self._frames) if frame["run_id"] == run_id and frame["id"] is not None]

    def close(self) -> None:
        """Go."""
        self._closed.set()
        self._thread.join(10)
        self._socket.close()

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                self._frames.append(json.loads(self._socket.recv()))
            except websocket.WebSocketTimeoutException:
                continue


@contextmanager
def opened(url: str) -> Iterator[socket.socket]:
    """What is under a WebSocket, whose frames are made here."""
    wire = websocket.create_connection(url, timeout=5).sock
    assert wire is not None
    with closing(wire):
        yield wire


def test_what_must_end_a_socket_ends_it(fuzzed: Service) -> None:
    """A frame that the protocol forbids, or this server, closes the socket within seconds, whatever came before."""

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(HARMLESS, max_size=3), ENDINGS)
    def send(before: list[bytes], ending: bytes) -> None:
        with opened(f"ws://127.0.0.1:{fuzzed.port}{_STREAM}") as wire:
            wire.sendall(b"".join(before) + ending)
            assert is_closed(wire)

    send()
    assert complaints(fuzzed) == []


def test_no_frame_harms_the_service_or_another_viewer(fuzzed: Service) -> None:
    """Whatever a client sends, it is closed or ignored; a viewer beside it is told all, and nothing is logged."""
    url = f"ws://127.0.0.1:{fuzzed.port}{_STREAM}"
    beside = Beside(url)

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(FRAMES, min_size=1, max_size=6), st.booleans())
    def send(frames: list[bytes], politely: bool) -> None:
        with opened(url) as wire:
            with suppress(OSError):  # it had enough
                for frame in frames:
                    wire.sendall(frame)
                if politely:
                    wire.shutdown(socket.SHUT_WR)
            assert not politely or is_closed(wire)

    send()
    assert complaints(fuzzed) == []
    run_id = fuzzed.submit("hello")
    fuzzed.ended(run_id)
    fuzzed.wait(lambda: beside.ids(run_id) == list(range(1, fuzzed.events(run_id)[-1]["id"] + 1)))
    beside.close()
    fuzzed.wait(lambda: fuzzed.client.call("GET", "/active")["connected_clients"] == 0)
