"""One trial: a fresh Redis and a fresh server, its sockets opened, a stretch of frames, and what became of them."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bench.fanout.processes import (
    Talker,
    cpu_seconds,
    free_port,
    machine_seconds,
    memory_kib,
    serving,
    talking,
)
from bench.fanout.servers import Server, Stage, environment
from redis import Redis
from redis.exceptions import RedisError

from nfctl.children import Program

_SETTLE_SECONDS = 2
_IDLE_SECONDS = 5
_OPENING_SECONDS = 300
_PATIENCE = 120
_END_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What a server has to carry: so many sockets, and for so many seconds so many frames a second."""

    sockets: int
    rate: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that every trial starts."""

    redis_server: Path
    load: Path


@dataclass(frozen=True, slots=True)
class Figures:
    """What one trial found. Times are in milliseconds, `_percent` are of one processor.

    `cpu` is microseconds of the server's processes a delivery, `redis_cpu` those of Redis beside it. `kib` is memory a
    socket. `elsewhere_percent` is what others on the machine used meanwhile: with much of it, latencies say little.
    """

    opened: int
    alive: int
    deliveries: int
    delivered_per_second: float
    lost: int
    doubled: int
    disordered: int
    p50: float
    p99: float
    most: float
    cpu: float
    redis_cpu: float
    idle_percent: float
    kib: float
    client_percent: float
    elsewhere_percent: float
    frame_bytes: int
    trouble: str


@dataclass(frozen=True, slots=True)
class Cast:
    """All processes of a trial that runs: pids of servers, and those that are spoken to."""

    server: int
    redis: int
    publisher: Talker
    client: Talker

    def cpu(self) -> tuple[float, float, float, float, float]:
        """Seconds so far: the server's, Redis', the client's, the publisher's, and the whole machine's."""
        pids = (self.server, self.redis, self.client.pid, self.publisher.pid)
        server, redis, client, publisher = map(cpu_seconds, pids)
        return server, redis, client, publisher, machine_seconds()


def run_trial(server: Server, load: Load, processes: int, tools: Tools) -> Figures:
    """Measure once; nothing is left running. Raises TrialFailed."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanout-")))
        redis_url, redis = stack.enter_context(_redis(tools.redis_server, load, directory))
        publisher, told = stack.enter_context(_publisher(server, load, redis_url, directory))
        stage = Stage(free_port(), redis_url, load.sockets, processes, directory)
        pid = stack.enter_context(_server(server, stage))
        time.sleep(_SETTLE_SECONDS)
        empty = memory_kib(pid)
        client = stack.enter_context(_client(server, load, tools.load, told, stage))
        opened = client.hear(_OPENING_SECONDS)["opened"]
        time.sleep(_SETTLE_SECONDS)
        kib = (memory_kib(pid) - empty) / max(1, opened)
        return _sending(Cast(pid, redis, publisher, client), load, kib)


def _sending(cast: Cast, load: Load, kib: float) -> Figures:
    idle = cpu_seconds(cast.server)
    time.sleep(_IDLE_SECONDS)
    idle = cpu_seconds(cast.server) - idle
    before, began = cast.cpu(), time.monotonic()
    cast.publisher.tell("go")
    sent = cast.publisher.hear(load.seconds + _PATIENCE)
    cast.client.tell(str(sent["last"]))
    cast.client.hear(_PATIENCE)
    seconds = time.monotonic() - began
    used = [after - earlier for after, earlier in zip(cast.cpu(), before, strict=True)]
    cast.client.tell("end")
    report = cast.client.hear(_PATIENCE)
    return _figures(report, sent, used, seconds, 100 * idle / _IDLE_SECONDS, kib)


def _figures(
    report: dict[str, Any], sent: dict[str, Any], used: list[float], seconds: float, idle_percent: float, kib: float
) -> Figures:
    server, redis, client, publisher, machine = used
    deliveries = report["deliveries"]
    return Figures(
        opened=report["opened"],
        alive=report["alive"],
        deliveries=deliveries,
        # A server that lags is given the time it takes; one that does not is given the last frame's share too.
        delivered_per_second=deliveries / max(sent["seconds"], report["seconds"]),
        lost=report["lost"],
        doubled=report["doubled"],
        disordered=report["disordered"],
        p50=report["p50_ms"],
        p99=report["p99_ms"],
        most=report["max_ms"],
        cpu=1e6 * server / max(1, deliveries),
        redis_cpu=1e6 * redis / max(1, deliveries),
        idle_percent=idle_percent,
        kib=kib,
        client_percent=100 * client / seconds,
        elsewhere_percent=100 * max(0.0, machine - server - redis - client - publisher) / seconds,
        frame_bytes=sent["frame_bytes"],
        trouble=report["trouble"],
    )


@contextmanager
def _redis(binary: Path, load: Load, directory: Path) -> Iterator[tuple[str, int]]:
    port = free_port()
    in_memory = ["--save", "", "--appendonly", "no", "--dir", str(directory)]
    # A peer has a connection for each socket.
    room = ["--maxclients", str(load.sockets + 200)]
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), *in_memory, *room]
    client = Redis(port=port)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except RedisError:
            return False

    with serving(Program("redis", command, environment(), directory / "redis.log"), answers) as pid:
        client.close()
        yield f"redis://127.0.0.1:{port}/0", pid


@contextmanager
def _publisher(server: Server, load: Load, redis_url: str, directory: Path) -> Iterator[tuple[Talker, dict[str, Any]]]:
    what = ["--to", server.publish_to, "--redis", redis_url, "--rate", str(load.rate), "--seconds", str(load.seconds)]
    command = [sys.executable, "-m", "bench.fanout.publisher", *what]
    with talking(command, environment(), directory / "publisher.log") as publisher:
        yield publisher, publisher.hear(_PATIENCE)


@contextmanager
def _server(server: Server, stage: Stage) -> Iterator[int]:
    command, its_environment = server.start(stage)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{stage.port}{server.ready_path}", timeout=5).status_code < 500
        except httpx.HTTPError:
            return False

    log = stage.directory / "server.log"
    with serving(Program(server.title, command, its_environment, log, _END_SECONDS), answers) as pid:
        yield pid


@contextmanager
def _client(server: Server, load: Load, program: Path, told: dict[str, Any], stage: Stage) -> Iterator[Talker]:
    where = ["-host", f"127.0.0.1:{stage.port}", "-path", told["path"], "-first", str(told["first"])]
    kind = ["-centrifuge"] if server.centrifuge else []
    command = [str(program), *where, *kind, "-sockets", str(load.sockets)]
    with talking(command, environment(), stage.directory / "client.log") as client:
        yield client
