"""The log of a pod: what reading it takes until it is in chunks, beside urllib3 alone, which the client stands on.

A server of this process gives out a log as an API server does, so many lines a chunk of the answer. Each reader is a
process of its own: `python -m bench.pod READER PORT LINES`.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.figures import Row, Section, compared
from bench.processes import environment, said
from bench.sizes import Sizes

_LINES = 50_000
_CHUNKS = (1, 100)
_PATIENCE = 120
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
_TEXT = "[a1/b2c3d4] Submitted process > ALIGN (sample_17)"


def measure(sizes: Sizes) -> list[Section]:
    """The two readers in turns, of lines that come one by one and of many that share a chunk."""
    rows = [row for of_chunk in _CHUNKS for row in _rows(of_chunk, sizes.rounds)]
    note = (
        f"{_LINES:,} lines that are there at once, from a server on this machine; each reader in a process of its own."
    )
    return [Section("The log of a pod", rows, notes=[note])]


def _rows(of_chunk: int, rounds: int) -> list[Row]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _READERS}
    with _serving(_answer(of_chunk)) as port:
        for _ in range(rounds):
            for name, figures in found.items():
                command = [sys.executable, "-m", "bench.pod", name, str(port), str(_LINES)]
                seconds, wall = map(float, said(command, environment(), _PATIENCE)[0].split())
                figures.append((seconds, wall))
    cpu, their_cpu = ([1e6 * used / _LINES for used, _ in figures] for figures in found.values())
    rate, their_rate = ([_LINES / wall for _, wall in figures] for figures in found.values())
    what = f"{of_chunk} a chunk" if of_chunk > 1 else "each in a chunk of its own"
    return [
        compared(f"CPU a line, {what} (µs)", "urllib3", cpu, their_cpu, "{:.1f}"),
        compared("… lines/s", "urllib3", rate, their_rate, "{:,.0f}"),
    ]


def _answer(of_chunk: int) -> bytes:
    lines = [b"2026-01-31T00:00:%02d.%09dZ %s %d\n" % (n * 50 // _LINES, n, _TEXT.encode(), n) for n in range(_LINES)]
    pieces = (b"".join(lines[n : n + of_chunk]) for n in range(0, _LINES, of_chunk))
    return b"".join([_HEAD, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"])


@contextmanager
def _serving(answer: bytes) -> Iterator[int]:
    """A port on which every request gets this answer."""
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                wire, _ = door.accept()
            except OSError:  # it is over
                return
            with wire:
                wire.recv(65_536)
                wire.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield door.getsockname()[1]
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        server.join()


def _ours(port: int) -> int:
    """As a worker reads it: followed by one thread, and taken in chunks by another."""
    from kubernetes.client.configuration import Configuration

    from worker.cluster import Outcome
    from worker.kube.api import Api
    from worker.kube.follower import Follower, Source
    from worker.kube.telling import Telling

    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    telling = Telling({})
    follower = Follower(Api(configuration), "runs", Source("head", "nextflow"), None, telling.relay)

    def follow() -> None:
        follower._read(last=False)
        telling.say(Outcome(0))

    thread = threading.Thread(target=follow)
    thread.start()
    count = sum(len(chunk.records) for chunk in telling.chunks())
    thread.join()
    return count


def _bare(port: int) -> int:
    """The same bytes by urllib3, as they come, cut into lines."""
    import urllib3

    answer = urllib3.PoolManager().request("GET", f"http://127.0.0.1:{port}/", preload_content=False)
    count, rest = 0, b""
    for piece in answer.stream():
        *lines, rest = (rest + piece).split(b"\n")
        count += len(lines)
    return count


_READERS = {"ours": _ours, "bare": _bare}


def main(arguments: Sequence[str]) -> None:
    """Read it once and say the seconds of CPU and of the clock."""
    reader, port, lines = arguments
    _READERS[reader](int(port))  # imports, and whatever else comes once
    used, began = time.process_time(), time.monotonic()
    count = _READERS[reader](int(port))
    assert count == int(lines), f"{count} of {lines}"
    print(time.process_time() - used, time.monotonic() - began)


if __name__ == "__main__":
    main(sys.argv[1:])
