"""One trial: a fresh Redis and a fresh server, its sockets opened, a stretch of frames, and what became of them."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.fanout.servers import Server, Stage
from bench.processes import (
    Talker,
    TrialFailed,
    Used,
    cpu_seconds,
    environment,
    kernel_seconds,
    machine_seconds,
    memory_kib,
    talking,
)
from bench.stage import directory, http_server, redis_server
from ports import free_port

_SETTLE_SECONDS = 2
_IDLE_SECONDS = 5
_OPENING_SECONDS = 300
_PATIENCE = 120
_LAG_SECONDS = 0.5
_SOCKETS_A_PROCESS = 2_000  # see SOCKET_PROCESSES in shared.settings


@dataclass(frozen=True, slots=True)
class Load:
    """What a server has to carry: so many sockets, and for so many seconds so many frames a second.

    `processes` of this service hold the sockets; as many as its settings recommend, if it is not said. So many events
    are `kept` from before, which whoever joins can have.
    """

    sockets: int
    rate: int
    seconds: int
    processes: int | None = None
    kept: int = 0

    def __str__(self) -> str:
        said = f"{self.sockets:,} × {self.rate}"
        return f"{said}, {self.processes} process{'es' if self.processes > 1 else ''}" if self.processes else said

    @property
    def socket_processes(self) -> int:
        """How many it is to start."""
        recommended = min(-(-self.sockets // _SOCKETS_A_PROCESS), os.cpu_count() or 1)
        return self.processes or max(1, recommended)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one trial found. Times are in milliseconds, `_percent` are of one processor.

    `behind` is how many seconds longer the reading of all frames took than their sending. `cpu` is microseconds of
    the server's processes a delivery, `kernel` those of them that were spent in the kernel, and `redis_cpu` those of
    Redis beside it. `kib` is memory a socket. `elsewhere_percent` is what others on the machine used meanwhile: with
    much of it, latencies say little.
    """

    wanted: int
    opened: int
    alive: int
    deliveries: int
    delivered_per_second: float
    behind: float
    lost: int
    doubled: int
    disordered: int
    p50: float
    p99: float
    most: float
    cpu: float
    kernel: float
    redis_cpu: float
    idle_percent: float
    kib: float
    client_percent: float
    elsewhere_percent: float
    frame_bytes: int
    trouble: str

    @property
    def lags(self) -> bool:
        """Whether it fell behind what was sent, or lost some."""
        return self.lost > 0 or self.behind > _LAG_SECONDS

    @property
    def whole(self) -> bool:
        """Whether each frame came once and in order to each socket, and as many as were wanted are alive."""
        return not (self.lost or self.doubled or self.disordered) and self.alive == self.opened == self.wanted

    @property
    def brief(self) -> str:
        """What whoever waits would know first."""
        said = (
            f"{self.delivered_per_second:,.0f}/s, {self.cpu:.1f} µs each, p99 {self.p99:.1f} ms, "
            f"{self.lost} lost, {self.alive} alive"
        )
        return f"{said} ({self.trouble})" if self.trouble else said


@dataclass(frozen=True, slots=True)
class Cast:
    """All that a trial has started: where it stands, pids of servers, and those that are spoken to.

    `path` is that of its sockets, `kib` is what each open socket takes.
    """

    stage: Stage
    server: int
    redis: int
    publisher: Talker
    client: Talker
    path: str
    opened: int
    kib: float

    def cpu(self) -> tuple[float, float, float, float, float]:
        """Seconds so far: the server's, Redis', the client's, the publisher's, and the whole machine's."""
        pids = (self.server, self.redis, self.client.pid, self.publisher.pid)
        server, redis, client, publisher = map(cpu_seconds, pids)
        return server, redis, client, publisher, machine_seconds()

    def publish(self) -> None:
        """Let the frames begin."""
        self.publisher.tell("go")

    def published(self, load: Load) -> dict[str, Any]:
        """What was published, once all of it has been read or nothing more comes. Raises TrialFailed."""
        sent = self.publisher.hear(load.seconds + _PATIENCE)
        self.client.tell(str(sent["last"]))
        self.client.hear(_PATIENCE)
        return sent

    def report(self) -> dict[str, Any]:
        """What became of the frames; ends the client. Raises TrialFailed."""
        self.client.tell("end")
        return self.client.hear(_PATIENCE)

    def whole_report(self) -> dict[str, Any]:
        """The same, where all sockets are alive and nothing went amiss. Raises TrialFailed otherwise."""
        report = self.report()
        faults = {name: report[name] for name in ("lost", "doubled", "disordered")}
        alive, sockets = report["alive"], self.stage.sockets
        if any(faults.values()) or alive < sockets:
            raise TrialFailed(f"{alive} of {sockets} sockets are alive, {faults}: {report['trouble']}")
        return report

    def carry(self, load: Load) -> dict[str, Any]:
        """Let the frames begin and end: the whole report, and `cpu`, the server's microseconds a delivery."""
        used = Used(self.server)
        self.publish()
        self.published(load)
        seconds = used.seconds()
        report = self.whole_report()
        return report | {"cpu": 1e6 * seconds / report["deliveries"]}


@contextmanager
def opened(server: Server, load: Load, program: Path) -> Iterator[Cast]:
    """A server with its sockets open, before the first frame; `program` is the load client. Raises TrialFailed."""
    with ExitStack() as stack:
        here = stack.enter_context(directory())
        # A peer has a connection for each socket.
        redis_url, redis = stack.enter_context(redis_server(here, "--maxclients", str(load.sockets + 200)))
        publisher, told = stack.enter_context(publishing(server.publish_to, load, redis_url, here))
        stage = Stage(free_port(), redis_url, load.sockets, load.socket_processes, here)
        command, its_environment = server.start(stage)
        pid = stack.enter_context(http_server(command, its_environment, here, stage.port, server.ready_path))
        time.sleep(_SETTLE_SECONDS)
        empty = memory_kib(pid)
        client = stack.enter_context(crowd(server, program, told, stage))
        count = client.hear(_OPENING_SECONDS)["opened"]
        time.sleep(_SETTLE_SECONDS)
        kib = (memory_kib(pid) - empty) / max(1, count)
        yield Cast(stage, pid, redis, publisher, client, told["path"], count, kib)


def run_trial(server: Server, load: Load, program: Path) -> Figures:
    """Measure once; nothing is left running. Raises TrialFailed."""
    with opened(server, load, program) as cast:
        idle = cpu_seconds(cast.server)
        time.sleep(_IDLE_SECONDS)
        idle = cpu_seconds(cast.server) - idle
        before, kernel, began = cast.cpu(), kernel_seconds(cast.server), time.monotonic()
        cast.publish()
        sent = cast.published(load)
        seconds = time.monotonic() - began
        used = [after - earlier for after, earlier in zip(cast.cpu(), before, strict=True)]
        kernel = kernel_seconds(cast.server) - kernel
        return _figures(load, cast.report(), sent, used, kernel, seconds, 100 * idle / _IDLE_SECONDS, cast.kib)


@contextmanager
def publishing(to: str, load: Load, redis_url: str, here: Path) -> Iterator[tuple[Talker, dict[str, Any]]]:
    """A publisher that waits to be told, and where its events will be. Raises TrialFailed."""
    what = ["--to", to, "--redis", redis_url, "--rate", str(load.rate), "--seconds", str(load.seconds)]
    what += ["--kept", str(load.kept)]
    command = [sys.executable, "-m", "bench.fanout.publisher", *what]
    with talking(command, environment(), here / "publisher.log") as publisher:
        yield publisher, publisher.hear(_PATIENCE)


def _figures(
    load: Load,
    report: dict[str, Any],
    sent: dict[str, Any],
    used: list[float],
    kernel: float,
    seconds: float,
    idle_percent: float,
    kib: float,
) -> Figures:
    server, redis, client, publisher, machine = used
    deliveries = report["deliveries"]
    return Figures(
        wanted=load.sockets,
        opened=report["opened"],
        alive=report["alive"],
        deliveries=deliveries,
        # A server that lags is given the time it takes; one that does not is given the last frame's share too.
        delivered_per_second=deliveries / max(sent["seconds"], report["seconds"]),
        behind=report["seconds"] - sent["seconds"],
        lost=report["lost"],
        doubled=report["doubled"],
        disordered=report["disordered"],
        p50=report["p50_ms"],
        p99=report["p99_ms"],
        most=report["max_ms"],
        cpu=1e6 * server / max(1, deliveries),
        kernel=1e6 * kernel / max(1, deliveries),
        redis_cpu=1e6 * redis / max(1, deliveries),
        idle_percent=idle_percent,
        kib=kib,
        client_percent=100 * client / seconds,
        elsewhere_percent=100 * max(0.0, machine - server - redis - client - publisher) / seconds,
        frame_bytes=sent["frame_bytes"],
        trouble=report["trouble"],
    )


@contextmanager
def crowd(server: Server, program: Path, told: Mapping[str, Any], stage: Stage) -> Iterator[Talker]:
    """A load client that opens all of the stage's sockets at that `path`; `first` numbers the first frame for them."""
    where = ["-host", f"127.0.0.1:{stage.port}", "-path", told["path"], "-first", str(told["first"])]
    kind = ["-centrifuge"] if server.centrifuge else []
    command = [str(program), *where, *kind, "-sockets", str(stage.sockets)]
    with talking(command, environment(), stage.directory / "client.log") as client:
        yield client
