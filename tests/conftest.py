"""What tests stand on: real servers on free ports of 127.0.0.1, each stopped by its pid."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
from ports import free_port
from redis import Redis
from redis.exceptions import RedisError
from service_process import Service

from nfctl import tools
from shared import settings as settings_module
from shared.feed import Feed
from shared.lease import Leases
from shared.redis_client import Client, connect
from shared.settings import Settings
from shared.store import Store

# A busy machine is no fault of what is tried.
hypothesis.settings.register_profile(
    "busy", hypothesis.settings.default, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

T = TypeVar("T")
ROOT = Path(__file__).parents[1]


def _need(find: Callable[[Callable[[str], None]], Path | None], what: str) -> Path:
    """What a test needs. At home a test is skipped for want of it; in CI it fails."""
    try:
        found = find(lambda _: None)
    except tools.ToolMissing as error:
        found, why = None, str(error)
    else:
        why = f"{what} is not to be had."
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def eventually(ask: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true answer; fails when there is none for so long."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"still {answer!r} after {seconds} s")
        time.sleep(0.02)
    return answer


class RedisServer:
    """A real Redis in a directory of its own, which can be killed and started again with what it kept."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        command = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--dir", str(self._directory), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(Redis(port=self.port).ping())
        except RedisError:
            return False


@pytest.fixture(scope="session")
def redis_binary() -> Path:
    return _need(tools.redis_server, "Redis")


@pytest.fixture(scope="session")
def nextflow() -> Path:
    return _need(tools.nextflow, "Nextflow")


@pytest.fixture(scope="session")
def chromium() -> Path:
    return _need(tools.chromium, "Chromium")


@pytest.fixture(scope="session")
def jq() -> Path:
    return _need(tools.jq, "jq")


@pytest.fixture(scope="session")
def shared_redis(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(redis_binary, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis(redis_binary: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill it."""
    directory = tmp_path / "own-redis"
    directory.mkdir()
    server = RedisServer(redis_binary, directory)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def settings(shared_redis: RedisServer, tmp_path: Path) -> Settings:
    """Settings on an empty Redis and an empty data directory."""
    Redis(port=shared_redis.port).flushall()
    return make_settings(shared_redis.url, tmp_path)


def make_settings(redis_url: str, data_dir: Path, **values: str) -> Settings:
    """Settings as an environment of these values makes them."""
    return settings_module.load({"REDIS_URL": redis_url, "DATA_DIR": str(data_dir), **values})


@pytest.fixture
def redis(settings: Settings) -> Client:
    return connect(settings.redis_url)


@pytest.fixture
def store(redis: Client, settings: Settings) -> Store:
    return Store(redis, settings)


@pytest.fixture
def feed(redis: Client, settings: Settings) -> Feed:
    return Feed(redis, settings)


@pytest.fixture
def leases(redis: Client) -> Leases:
    return Leases(redis)


@pytest.fixture(scope="session")
def service(nextflow: Path, redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as it was."""
    running = Service(tmp_path_factory.mktemp("service"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def own_service(nextflow: Path, redis_binary: Path, tmp_path: Path) -> Iterator[Service]:
    """A service for one test, which may break it."""
    running = Service(tmp_path / "data")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[[str], str]:
    """Write a pipeline and give its path."""

    def write(text: str) -> str:
        path = tmp_path / "main.nf"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def counting(pipeline: Callable[[str], str]) -> str:
    """A pipeline that prints `params.lines` numbered lines, one each `params.pause` milliseconds."""
    return pipeline(
        """
params.lines = 100
params.pause = 100
workflow {
    channel.of(1..params.lines).map { n -> Thread.sleep(params.pause as long); "number ${n}" }.view()
}
"""
    )


@pytest.fixture
def ten_tries(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of whoever follows a run and is not let in: none is made, and the tenth raises TimeoutError."""
    tries: list[float] = []

    def enough(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 10:
            raise TimeoutError

    monkeypatch.setattr("nfctl.client.time.sleep", enough)
    return tries
