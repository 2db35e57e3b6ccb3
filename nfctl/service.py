"""The whole service on one machine, under one parent: Redis, worker, reconciler, web and Flower."""

import fcntl
import os
import random
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import httpx
from redis.exceptions import RedisError

from nfctl import tools
from nfctl.children import Child, Program, Say
from shared.redis_client import connect
from shared.settings import Settings

_HEALTHY_SECONDS = 90.0
_PULSE_SECONDS = 0.2
_EARLIER_REDIS_SECONDS = 30.0
# Below what a kernel gives to those who name no port, and a cluster to its services: so it stays Redis's own while that
# starts, or starts again.
_REDIS_PORTS = range(20_000, 30_000)


class CannotServe(Exception):
    """The service cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """The programs that the service needs besides its own; None where it needs none."""

    nextflow: Path | None
    redis: Path | None


class LocalService:
    """Starts all, keeps all running, stops all."""

    def __init__(self, settings: Settings, found: Found, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._stop_wanted = False
        self.url = local_url(settings)
        self._private_redis = found.redis is not None
        redis_url, redis = settings.redis_url, []
        if found.redis is not None:
            redis_url, program = _private_redis(settings.data_dir, found.redis, {settings.port, settings.flower_port})
            redis = [Child(program, say)]
        self._redis_url = redis_url
        programs = _programs(settings, redis_url, found.nextflow)
        self._children = redis + [Child(program, say) for program in programs]

    @property
    def names(self) -> str:
        """The programs of the service, in words."""
        *most, last = [child.program.name for child in self._children]
        return f"{', '.join(most)} and {last}"

    def stop_when_told(self) -> None:
        """From now on SIGINT and SIGTERM end the service in order."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @property
    def told_to_stop(self) -> bool:
        """Whether a signal has come."""
        return self._stop_wanted

    def start(self) -> None:
        """Start all and wait until the service is healthy. Raises CannotServe."""
        _allow_many_files()
        first, *others = self._children
        first.start()
        if self._private_redis:
            self._wait("Redis", self._redis_answers)
        for child in others:
            child.start()
        self._wait("the service", self._healthy)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep all running until told to stop, or until `until()`."""
        while not self._stop_wanted and not until():
            self._pulse()

    def stop(self) -> None:
        """Stop all, Redis last. A run goes on: the next start takes it up again."""
        first, *others = self._children
        # Redis is the first, and the others write to it to the last.
        for group in (others[::-1], [first]):
            for child in group:
                child.ask_to_end()
            for child in group:
                child.wait_for_end()

    def _pulse(self) -> None:
        for child in self._children:
            child.watch()
        time.sleep(_PULSE_SECONDS)

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline, tell_at = time.monotonic() + _HEALTHY_SECONDS, time.monotonic() + 5
        while not self._stop_wanted and not ready():
            # A Redis that is not ours may be away for as long as it likes; the service says so and heals.
            if not self._private_redis and not self._redis_answers():
                deadline = time.monotonic() + _HEALTHY_SECONDS
            if time.monotonic() > deadline:
                raise CannotServe(
                    f"{what} is not ready after {_HEALTHY_SECONDS:.0f} s. See the logs in "
                    f"{self._settings.data_dir / 'logs'}."
                )
            if time.monotonic() > tell_at:
                self._say(f"Waiting for {what} …{self._redis_away()}")
                tell_at += 5
            self._pulse()

    def _redis_away(self) -> str:
        """What to do about a Redis that is not ours and does not answer, without the password in its URL."""
        if self._private_redis or self._redis_answers():
            return ""
        address = urlsplit(self._redis_url).netloc.rpartition("@")[2]
        return f" Redis does not answer at {address}: start it, or set REDIS_URL."

    def _redis_answers(self) -> bool:
        try:
            return bool(connect(self._redis_url, timeout=1).ping())
        except (RedisError, OSError):
            return False

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def check(self) -> None:
        """Look for what would keep the service from starting. Raises CannotServe."""
        if not self._settings.pipelines_dir.is_dir():
            self._say(f"PIPELINES_DIR={self._settings.pipelines_dir} is no directory: there is no catalog.")
        _check_port(self._settings.host, self._settings.port, "PORT")
        if self._settings.flower_port:
            _check_port("127.0.0.1", self._settings.flower_port, "FLOWER_PORT")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_wanted = True


def find_programs(settings: Settings, say: Say) -> Found:
    """What is there, or installed now. Raises tools.ToolMissing."""
    nextflow = tools.nextflow(say, settings.nextflow_bin or None) if settings.runner == "local" else None
    return Found(nextflow, None if settings.redis_url else tools.redis_server(say))


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this service. Raises CannotServe while another has it."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "service.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotServe(f"The data directory {data_dir} cannot be used: {error.strerror}. Set DATA_DIR.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = f" (pid {told})" if (told := os.read(lock, 20).decode()) else ""
        os.close(lock)
        raise CannotServe(
            f"Another service works in {data_dir}{who}. "
            "Stop it, or set DATA_DIR, PORT and FLOWER_PORT for a second one."
        ) from None
    try:
        with suppress(OSError):  # on a full disk nobody is told who it is
            os.truncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def _programs(settings: Settings, redis_url: str, nextflow: Path | None) -> list[Program]:
    environment = os.environ | {
        "REDIS_URL": redis_url,
        "DATA_DIR": str(settings.data_dir),
        "PYTHONUNBUFFERED": "1",
    }
    if nextflow is not None:
        environment["NEXTFLOW_BIN"] = str(nextflow)
    logs = settings.data_dir / "logs"
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "-A", "worker.app", "--skip-checks"]
    # A worker that is alone need not listen for others; looking for them costs a second at the start.
    worker = [*celery, "worker", "--without-mingle", "--without-gossip"]
    programs = [
        Program(
            "worker",
            [*worker, "-n", "worker@%h", "-Q", "runs", "-P", "prefork", "-c", "1"],
            environment,
            logs / "worker.log",
        ),
        Program("reconciler", [*python, "worker.reconciler"], environment, logs / "reconciler.log"),
        Program(
            "web",
            [*python, "gunicorn", "-c", "python:web.gunicorn_conf", "web.wsgi:app"],
            environment,
            logs / "web.log",
        ),
    ]
    if settings.flower_port:
        # Read-only: its buttons could end the Celery task of a run, and with it nothing but the truth.
        flower = [
            *celery,
            "flower",
            "--address=127.0.0.1",
            f"--port={settings.flower_port}",
            "--read_only=true",
        ]
        programs.append(
            Program("flower", flower, environment | {"FLOWER_UNAUTHENTICATED_API": "true"}, logs / "flower.log")
        )
    return programs


def _private_redis(data_dir: Path, binary: Path, others: Collection[int] = ()) -> tuple[str, Program]:
    """A Redis of our own: on loopback, with a password, every write on disk, on none of those other ports."""
    directory = data_dir / "redis"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ports = [port for port in random.sample(_REDIS_PORTS, len(_REDIS_PORTS)) if port not in others]
    password, port = secrets.token_urlsafe(24), first_free(ports)
    config = directory / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {directory}\n"
        'appendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\nsave ""\ndaemonize no\n'
    )
    arguments, log = [str(binary), str(config)], data_dir / "logs" / "redis.log"
    program = Program("redis", arguments, dict(os.environ), log, 30.0, [_lock_for_as_long_as_it_lives(directory)])
    return f"redis://:{password}@127.0.0.1:{port}/0", program


def _lock_for_as_long_as_it_lives(directory: Path) -> int:
    """A lock that Redis inherits: two that write to one file would spoil it. Raises CannotServe.

    One whose parent was killed ends too, but may take a while.
    """
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _EARLIER_REDIS_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise CannotServe(f"An earlier Redis still works in {directory}. End it, and start again.") from None
            time.sleep(_PULSE_SECONDS)
        else:
            return lock


def first_free(ports: Iterable[int]) -> int:
    """The first of these that nobody uses on 127.0.0.1. Raises CannotServe."""
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CannotServe("No port of 127.0.0.1 is free for Redis. Set REDIS_URL to one that runs.")


def _check_port(host: str, port: int, setting: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServe(
                f"Port {port} on {host} cannot be used ({error.strerror}). Stop what uses it, or set {setting}."
            ) from error


def _allow_many_files() -> None:
    """As many open files as the system lets this user have: each socket is one, in the children too."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def local_url(settings: Settings) -> str:
    """Where the service that these settings describe is reached from this machine."""
    return f"http://{_for_url(settings.host)}:{settings.port}"


def _for_url(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
