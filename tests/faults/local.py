"""The faults of one machine: each is injected into a service of its own, at a random moment of a run."""

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import websocket
from faults.trial import Fault, Scene
from redis import Redis
from redis.exceptions import RedisError

from shared.broker import Broker, make_celery
from shared.settings import load

_QUEUED = {"lines": 5, "pause": 0}
_FROZEN_SECONDS = 60
_AWAY_SECONDS = 30
_FULL_SECONDS = 8
Injection = Callable[[Scene], float | None]


def _worker_killed(which: slice) -> Injection:
    def inject(scene: Scene) -> None:
        scene.signal(scene.pids("worker@", 2)[which], signal.SIGKILL)

    return inject


def _worker_frozen(scene: Scene) -> None:
    with _frozen(scene, scene.pids("worker@", 2)):
        time.sleep(_FROZEN_SECONDS)


def _worker_frozen_beside_another(scene: Scene) -> float:
    """The other takes the run over; the frozen one wakes up and must find that it may write no more."""
    with _another(scene, "worker@", ["-n", "worker@second"]), _frozen(scene, scene.pids("worker@", 2)):
        frozen_at = time.time()
        time.sleep(_FROZEN_SECONDS)
    return frozen_at


def _worker_replaced_twice(scene: Scene) -> float:
    for _ in range(2):
        [parent, *_] = scene.pids("worker@")
        told_at = time.time()
        scene.signal([parent], signal.SIGTERM)
        scene.service.wait(partial(_replaced, scene, parent), 60)
        time.sleep(scene.rng.uniform(0, 2))
    return told_at


def _replaced(scene: Scene, parent: int) -> bool:
    return scene.service.children("worker@")[:1] not in ([], [parent])


def _worker_away_at_the_end(scene: Scene) -> None:
    with _frozen(scene, [scene.service.pid]):  # which would start the worker again
        scene.signal(scene.pids("worker@"), signal.SIGKILL)
        scene.service.wait(lambda: any("ended" in entry for entry in scene.stage.journal()), 60)


def _redis_restarted(number: int) -> Injection:
    def inject(scene: Scene) -> None:
        scene.signal(scene.pids("redis-server"), number)
        _wait_for_redis(scene)

    return inject


def _redis_refuses(scene: Scene) -> None:
    with _frozen(scene, [scene.service.pid]):  # which would start Redis again
        scene.signal(scene.pids("redis-server"), signal.SIGKILL)
        time.sleep(_AWAY_SECONDS / 2)
        _must_say_503(scene)
        time.sleep(_AWAY_SECONDS / 2)
    _wait_for_redis(scene)


def _clients_cut(kind: str) -> Injection:
    def inject(scene: Scene) -> None:
        for _ in range(5):
            redis(scene).execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(scene.rng.uniform(0, 0.5))

    return inject


def _redis_full(scene: Scene) -> None:
    client = redis(scene)
    client.config_set("maxmemory", "1mb")
    try:
        time.sleep(_FULL_SECONDS / 2)
        _must_say_503(scene)
        time.sleep(_FULL_SECONDS / 2)
    finally:
        client.config_set("maxmemory", "0")


def _web_killed(scene: Scene) -> None:
    # One that serves, or the one that started those.
    scene.signal([scene.rng.choice(scene.pids("gunicorn", 2))], signal.SIGKILL)


def _web_stopped_with_sockets(scene: Scene) -> float:
    opened = [_open(scene) for _ in range(200)]
    with ThreadPoolExecutor(200) as pool:
        told_at = time.time()
        closing_codes = [pool.submit(_close_code, one) for one in opened]
        scene.signal(scene.pids("gunicorn")[:1], signal.SIGTERM)
    told = [code.result() for code in closing_codes]
    scene.verdict.check(told == [1012] * 200, f"sockets of a web that stopped were closed with {set(told)}")
    return told_at


def _two_of_each(scene: Scene) -> None:
    with _another(scene, "worker@", ["-n", "worker@second"]), _another(scene, "worker.reconciler", []):
        scene.more_runs += [_submit(scene) for _ in range(3)]
        for run_id in [scene.run_id, *scene.more_runs]:
            scene.service.ended(run_id, 120)


def _poked_five_times(scene: Scene) -> None:
    settings = load({"REDIS_URL": redis_url(scene), "DATA_DIR": str(scene.directory)})
    broker = Broker(make_celery(settings), redis(scene))
    # So that somebody is free to take them while the run goes on.
    with _another(scene, "worker@", ["-n", "worker@second"]):
        for _ in range(5):
            broker.poke(scene.run_id)
        scene.service.ended(scene.run_id, 120)


def _crowd(scene: Scene) -> None:
    """100 submissions at once, then 20 cancels at once, then the rest but a few."""
    with ThreadPoolExecutor(20) as pool:
        submitted = list(pool.map(lambda _: _submit(scene), range(100)))
        queue = scene.service.client.call("GET", "/status", params={"run_id": scene.run_id})["queue"]
        queued = [entry if isinstance(entry, str) else entry["run_id"] for entry in queue]
        scene.verdict.check(sorted(queued) == sorted(submitted), f"of 100 runs {len(queued)} stand in the queue")
        answers = list(pool.map(lambda run_id: _cancel(scene, run_id), scene.rng.sample(submitted, 20) * 2))
        scene.verdict.check(sum(answers) >= 20, f"of 20 queued runs {sum(answers)} could be cancelled")
        list(pool.map(lambda run_id: _cancel(scene, run_id), submitted[4:]))
    scene.more_runs += submitted


def _disk_full(scene: Scene) -> None:
    data = scene.directory / "data"
    filler = data / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1_000_000))
    time.sleep(_FULL_SECONDS)
    filler.unlink()


def _two_doors(_: Path) -> AbstractContextManager[Mapping[str, str]]:
    return nullcontext({"WEB_PROCESSES": "2"})


@contextmanager
def _small_disk(directory: Path) -> Iterator[Mapping[str, str]]:
    """A data directory on a file system of its own, which a test can fill."""
    data = directory / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(data)], check=True)
    try:
        yield {}
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


@contextmanager
def _own_clock(directory: Path) -> Iterator[Mapping[str, str]]:
    """A wall clock of the service's own, so many seconds from the machine's as a file says."""
    (directory / "clock").write_text("0")
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    yield {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(directory / "clock")}


def _clock_back(scene: Scene) -> float:
    (scene.directory / "clock").write_text("-2")
    return time.time() - 2  # as the lines to come will say


def _client_that_never_reads(scene: Scene) -> None:
    _hold(scene, lambda _: time.sleep(1))


def _client_that_reads_slowly(scene: Scene) -> None:
    def read(opened: websocket.WebSocket) -> None:
        _wire(opened).recv(1)
        time.sleep(1)

    _hold(scene, read)


def _client_that_floods(scene: Scene) -> None:
    def flood(opened: websocket.WebSocket) -> None:
        for _ in range(100):
            opened.send(b"x" * 1000)

    _hold(scene, flood)


def _clients_that_drop(scene: Scene) -> None:
    with ThreadPoolExecutor(50) as pool:
        for opened in [pool.submit(_open, scene) for _ in range(500)]:
            _wire(opened.result()).close()


def _interrupted(scene: Scene) -> None:
    """Ctrl-C, a start that is interrupted at any moment, and a start."""
    scene.verdict.check(scene.service.stop(signal.SIGINT) == 0, "Ctrl-C did not end the service with 0")
    code = scene.service.interrupt_start(scene.rng.uniform(0, 6))
    scene.verdict.check(code in (0, 130), f"Ctrl-C while starting ended the service with {code}")
    scene.service.start()


_LOUD: dict[str, Any] = {"lines": 30_000, "pause": 0, "width": 400, "latest": 1.0}

FAULTS = [
    Fault("worker's parent killed", _worker_killed(slice(0, 1))),
    Fault("worker's child killed", _worker_killed(slice(1, 2))),
    Fault("worker killed, parent and child", _worker_killed(slice(0, 2))),
    Fault("worker frozen for 60 s", _worker_frozen),
    Fault("worker frozen for 60 s beside another", _worker_frozen_beside_another),
    Fault("worker replaced twice (SIGTERM)", _worker_replaced_twice),
    Fault("worker away while the run ends", _worker_away_at_the_end),
    Fault("Redis restarted", _redis_restarted(signal.SIGTERM)),
    Fault("Redis killed", _redis_restarted(signal.SIGKILL)),
    Fault("Redis refuses connections for 30 s", _redis_refuses),
    Fault("Redis cuts subscribers", _clients_cut("pubsub")),
    Fault("Redis cuts all other clients", _clients_cut("normal")),
    Fault("Redis full", _redis_full),
    Fault("web process killed", _web_killed),
    Fault("web stopped with 200 sockets open", _web_stopped_with_sockets),
    Fault("two workers, two reconcilers", _two_of_each),
    Fault("poked five times", _poked_five_times),
    Fault("100 submissions, 40 cancels at once", _crowd, lines=500, ground=_two_doors),
    Fault("disk full", _disk_full, ground=_small_disk, needs_root=True, nextflow_may_fail=True),
    Fault("clock steps back 2 s", _clock_back, ground=_own_clock),
    Fault("client that never reads", _client_that_never_reads, **_LOUD),
    Fault("client that reads a byte a second", _client_that_reads_slowly, **_LOUD),
    Fault("client that floods", _client_that_floods),
    Fault("500 clients that connect and drop", _clients_that_drop),
    Fault("Ctrl-C, and again while starting", _interrupted),
]


def redis_url(scene: Scene) -> str:
    """Where the service's own Redis is; its password is in its configuration."""
    lines = (scene.directory / "data" / "redis" / "redis.conf").read_text().splitlines()
    words = dict(line.split(" ", 1) for line in lines)
    return f"redis://:{words['requirepass']}@127.0.0.1:{words['port']}/0"


def redis(scene: Scene) -> Any:
    """A client of the service's own Redis."""
    return Redis.from_url(redis_url(scene))


def _wait_for_redis(scene: Scene) -> None:
    def answers() -> bool:
        with suppress(RedisError):
            return bool(redis(scene).ping())
        return False

    scene.service.wait(answers, 60)


def _must_say_503(scene: Scene) -> None:
    answer = httpx.post(
        f"{scene.service.url}/api/v1/pipeline/run", json={"pipeline": "hello", "when_busy": "queue"}, timeout=30
    )
    health = httpx.get(f"{scene.service.url}/health", timeout=30)
    blamed = [name for name, check in health.json()["checks"].items() if name == "redis" and not check["ok"]]
    scene.verdict.check((health.status_code, blamed) == (503, ["redis"]), f"/health says {health.text}")
    said = answer.headers.get("Retry-After")
    scene.verdict.check(answer.status_code == 503 and said is not None, f"a submission got {answer.status_code}")


@contextmanager
def _frozen(scene: Scene, pids: list[int]) -> Iterator[None]:
    scene.signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        scene.signal(pids, signal.SIGCONT)


@contextmanager
def _another(scene: Scene, like: str, more: list[str]) -> Iterator[None]:
    """A second process like that one, as somebody might start it by mistake."""
    command = Path(f"/proc/{scene.pids(like)[0]}/cmdline").read_bytes().split(b"\0")[:-1]
    with (scene.directory / "another.log").open("ab") as log:
        arguments = [*command, *(word.encode() for word in more)]
        process = subprocess.Popen(arguments, env=scene.environment_of(like), stdout=log, stderr=log)
    try:
        time.sleep(3)  # it starts
        yield
    finally:
        process.terminate()
        process.wait(60)


def _submit(scene: Scene) -> str:
    return scene.service.submit(scene.stage.pipeline, parameters=_QUEUED)


def _cancel(scene: Scene, run_id: str) -> bool:
    taken = bool(scene.service.client.call("DELETE", "/cancel", params={"run_id": run_id})["cancelled"])
    if taken:
        scene.cancelled.add(run_id)
    return taken


def _open(scene: Scene) -> websocket.WebSocket:
    url = f"ws://127.0.0.1:{scene.service.port}/api/v1/pipeline/stream?run_id={scene.run_id}"
    return websocket.create_connection(url, timeout=60)


def _wire(opened: websocket.WebSocket) -> socket.socket:
    """What is under a WebSocket: to misbehave on it, or to drop it without a word."""
    assert opened.sock is not None
    return opened.sock


def _close_code(opened: websocket.WebSocket) -> int | None:
    """The code that a socket is closed with, after whatever else it is told."""
    with closing(opened):
        try:
            while True:
                opcode, data = opened.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return int.from_bytes(data[:2], "big")
        except (websocket.WebSocketException, OSError):
            return None


def _hold(scene: Scene, behave: Callable[[websocket.WebSocket], None]) -> None:
    """Ten clients that behave so, until the run has ended or they are thrown out."""
    ended = threading.Event()

    def act() -> None:
        opened = _open(scene)
        _wire(opened).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with closing(_wire(opened)), suppress(websocket.WebSocketException, OSError):
            while not ended.is_set():
                behave(opened)

    actors = [threading.Thread(target=act) for _ in range(10)]
    for actor in actors:
        actor.start()
    try:
        scene.service.ended(scene.run_id, 180)
    finally:
        ended.set()
        for actor in actors:
            actor.join(10)
