"""The servers that are compared: ours as it is deployed, and peers that relay a channel of Redis."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.fanout import build
from bench.fanout.publisher import CHANNEL
from bench.processes import environment
from bench.stage import WEB_COMMAND, settings_alone

from nfctl.cache import Say

_SPARE_SOCKETS = 100
_PYTHON = (sys.executable, "-m")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a server is started: its port, its Redis, how many sockets will come, a directory for its files."""

    port: int
    redis_url: str
    sockets: int
    processes: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Server:
    """One server: how it is started (command and environment on a stage), and how it is spoken to."""

    title: str
    start: Callable[[Stage], tuple[Sequence[str], Mapping[str, str]]]
    publish_to: str = "channel"
    centrifuge: bool = False
    ready_path: str = "/"


def _ours(_say: Say) -> Server:
    def start(stage: Stage) -> tuple[Sequence[str], Mapping[str, str]]:
        return WEB_COMMAND, settings_alone(
            REDIS_URL=stage.redis_url,
            PORT=str(stage.port),
            DATA_DIR=str(stage.directory),
            SOCKET_PROCESSES=str(stage.processes),
            MAX_WEBSOCKET_CONNECTIONS=str(2 * stage.sockets + _SPARE_SOCKETS),
        )

    return Server("this service", start, publish_to="feed", ready_path="/healthz")


def _centrifuge(title: str, *flags: str) -> Callable[[Say], Server]:
    def make(say: Say) -> Server:
        program = build.centrifuge_program(say)

        def start(stage: Stage) -> tuple[Sequence[str], Mapping[str, str]]:
            listen = ["-listen", f"127.0.0.1:{stage.port}"]
            return [str(program), *listen, "-redis", stage.redis_url, "-channel", CHANNEL, *flags], os.environ

        return Server(title, start, centrifuge=True)

    return make


def _websockets(say: Say) -> Server:
    packages = build.websockets_packages(say)

    def start(stage: Stage) -> tuple[Sequence[str], Mapping[str, str]]:
        source = ["--redis", stage.redis_url, "--channel", CHANNEL]
        command = [*_PYTHON, "bench.fanout.peers.broadcast", "--port", str(stage.port), *source]
        return command, environment(packages)

    return Server(f"websockets {build.WEBSOCKETS_VERSION} broadcast, uvloop", start)


def _plain(_say: Say) -> Server:
    def start(stage: Stage) -> tuple[Sequence[str], Mapping[str, str]]:
        gevent = ["-k", "gevent", "-b", f"127.0.0.1:{stage.port}", "--no-control-socket"]
        room = ["--worker-connections", str(stage.sockets + _SPARE_SOCKETS)]
        source = {"BENCH_REDIS": stage.redis_url, "BENCH_CHANNEL": CHANNEL}
        return [*_PYTHON, "gunicorn", *gevent, *room, "bench.fanout.peers.plain:app"], environment() | source

    return Server("flask-sock, a subscription each", start)


_CENTRIFUGE = f"Centrifuge {build.CENTRIFUGE_VERSION}"
SERVERS: Mapping[str, Callable[[Say], Server]] = {
    "ours": _ours,
    "centrifuge": _centrifuge(_CENTRIFUGE),
    "centrifuge-delay": _centrifuge(f"{_CENTRIFUGE}, 50 ms write delay", "-write-delay", "50ms", "-max-messages", "64"),
    "websockets": _websockets,
    "flask-sock": _plain,
}
"""What makes each server, building what it needs. Raises ToolMissing."""
