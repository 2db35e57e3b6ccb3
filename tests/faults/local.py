"""The faults of one machine: each is injected into a service of its own, at a random moment of a run."""

import errno
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import websocket
from faults.trial import VIEWERS, Fault, Scene
from faults.worker import (
    Injection,
    another,
    frozen,
    worker_away_at_the_end,
    worker_frozen,
    worker_frozen_beside_another,
    worker_killed,
    worker_replaced_twice,
)
from redis import Redis
from redis.exceptions import RedisError

from nfctl.client import API
from shared.broker import Broker, make_celery
from shared.settings import load
from shared.times import from_text

_QUEUED = {"lines": 5, "pause": 0}
_SUBMISSIONS, _CANCELS, _SPARED = 100, 40, 3
_WEB_PROCESSES = 2
_TRIES = 20
_SPREAD_SECONDS = 2.0
_STALL_SECONDS = 20
_POLICY_VIOLATION = 1008
_AWAY_SECONDS = 30
_FREED_MOST = 5_000_000
_FULL_SECONDS = 8


def _shim_killed(scene: Scene) -> float:
    """What owns Nextflow on this machine, as soon as there is one."""
    scene.service.wait(lambda: _shims(scene), 60)
    killed_at = time.time()
    for _ in range(10):  # one that was just about to fork has a child by now
        scene.signal(_shims(scene), signal.SIGKILL)
        time.sleep(0.05)
    return killed_at


def _shims(scene: Scene) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"worker.shim" in words and any(word.endswith(scene.run_id.encode()) for word in words):
                found.append(int(entry.name))
    return found


def _redis_restarted(number: int) -> Injection:
    def inject(scene: Scene) -> None:
        scene.signal(scene.pids("redis-server"), number)
        _wait_for_redis(scene)

    return inject


def _redis_loses(scene: Scene) -> float:
    scene.service.lose_newest()
    _wait_for_redis(scene)
    over = time.time()
    scene.service.wait(lambda: all(viewer.began_anew for viewer in scene.viewers))
    return over


def _redis_refuses(scene: Scene) -> None:
    with frozen(scene, [scene.service.pid]):  # which would start Redis again
        scene.signal(scene.pids("redis-server"), signal.SIGKILL)
        time.sleep(_AWAY_SECONDS / 2)
        _must_say_503(scene)
        time.sleep(_AWAY_SECONDS / 2)
    _wait_for_redis(scene)


def _clients_cut(kind: str) -> Injection:
    def inject(scene: Scene) -> None:
        killed = 0
        for _ in range(5):
            killed += redis(scene).execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(scene.rng.uniform(0, 0.5))
        scene.verdict.check(killed > 0, f"Redis had no {kind} client to cut")

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


def _web_stopped_with_sockets(scene: Scene) -> None:
    opened = [_open(scene) for _ in range(200)]
    with ThreadPoolExecutor(200) as pool:
        closing_codes = [pool.submit(_close_code, one) for one in opened]
        scene.signal(scene.pids("gunicorn")[:1], signal.SIGTERM)
    told = [code.result() for code in closing_codes]
    scene.verdict.check(told == [1012] * 200, f"sockets of a web that stopped were closed with {set(told)}")


def _two_of_each(scene: Scene) -> None:
    for like, more in (("worker@", ["-n", "worker@second"]), ("worker.reconciler", [])):
        scene.lasting.enter_context(another(scene, like, more))
    scene.more_runs += [_submit(scene) for _ in range(3)]


def _poked_five_times(scene: Scene) -> None:
    settings = load({"REDIS_URL": redis_url(scene), "DATA_DIR": str(scene.directory)})
    broker = Broker(make_celery(settings), redis(scene))
    # So that somebody is free to take them while the run goes on.
    scene.lasting.enter_context(another(scene, "worker@", ["-n", "worker@second"]))
    for _ in range(5):
        broker.poke(scene.run_id)
    scene.service.wait(lambda: broker.waiting() == 0)


def _crowd(scene: Scene) -> float:
    """100 submissions and 40 cancels of them at once, and when a line shows that the run goes on, its end and theirs.

    A few stay in the queue, and must have their turn.
    """
    submitted = _rush(scene)
    scene.more_runs += submitted
    left = set(submitted) - scene.cancelled
    queue = scene.service.client.call("GET", "/status", params={"run_id": scene.run_id})["queue"]
    queued = [entry["run_id"] for entry in queue]
    scene.verdict.check(len(scene.cancelled) > _CANCELS / 2, f"only {len(scene.cancelled)} were cancelled at once")
    scene.verdict.check(len(submitted) == _SUBMISSIONS, f"{len(submitted)} runs were taken in")
    scene.verdict.check(set(queued) == left, f"of {len(left)} runs {len(queued)} stand in the queue")
    over = time.time()
    scene.wait_for_line_after(over)
    # None: whatever is active.
    doomed = [scene.run_id, None, *queued[_SPARED:]] * 2
    with ThreadPoolExecutor(len(doomed)) as pool:
        list(pool.map(partial(_cancel, scene), scene.rng.sample(doomed, len(doomed))))
    remain = {scene.run_id, *queued[_SPARED:]} - scene.cancelled
    scene.verdict.check(not remain, f"{len(remain)} runs that had not ended could not be cancelled")
    return over


def _rush(scene: Scene) -> list[str]:
    """Each call on a connection of its own, all open before the first begins; returns the ids of the new runs."""
    deeds = [_submit_one] * _SUBMISSIONS + [_cancel_one] * _CANCELS
    scene.rng.shuffle(deeds)
    shares = [scene.rng.random() for _ in deeds]
    start = threading.Barrier(len(deeds) + 1, timeout=60)
    known: list[str] = []

    def call(deed: Callable[[Scene, HTTPConnection, float, list[str]], None], door: HTTPConnection, at: float) -> None:
        start.wait()
        deed(scene, door, at, known)

    with ExitStack() as stack:
        doors = _doors(scene, stack, len(deeds))
        with ThreadPoolExecutor(len(deeds)) as pool:
            calls = pool.map(call, deeds, doors, shares)
            start.wait()
            list(calls)
    return known


def _doors(scene: Scene, stack: ExitStack, number: int) -> list[HTTPConnection]:
    """So many connections, all open, and each web process has some of them.

    One that is quick may take all while the other has no processor; then they are opened anew.
    """
    for _ in range(_TRIES):
        doors = [HTTPConnection("127.0.0.1", scene.service.port, timeout=60) for _ in range(number)]
        for door in doors:
            stack.enter_context(closing(door)).connect()
        ports = {door.sock.getsockname()[1] for door in doors}
        until = time.monotonic() + _SPREAD_SECONDS
        while time.monotonic() < until:
            if len(_who_holds(scene, ports)) == _WEB_PROCESSES:
                return doors
            time.sleep(0.1)
        for door in doors:
            door.close()
    raise AssertionError("One web process takes all connections.")


def _submit_one(scene: Scene, door: HTTPConnection, _: float, known: list[str]) -> None:
    request = {"pipeline": scene.stage.pipeline, "when_busy": "queue", "parameters": _QUEUED}
    known.append(_answer(door, "POST", "/run", request)["run_id"])


def _cancel_one(scene: Scene, door: HTTPConnection, at: float, known: list[str]) -> None:
    """Cancel one as soon as so many are known; another may cancel the same."""
    number = int(at * _SUBMISSIONS)
    scene.service.wait(lambda: len(known) > number)
    answer = _answer(door, "DELETE", f"/cancel?run_id={known[number]}")
    scene.verdict.check(answer["status"] == "cancelled", f"a cancel of a queued run was answered with {answer}")
    if answer["cancelled"]:
        scene.cancelled.add(known[number])


def _answer(door: HTTPConnection, method: str, path: str, request: object = None) -> Any:
    headers = {"Content-Type": "application/json"}
    door.request(method, API + path, json.dumps(request) if request else None, headers)
    answer = door.getresponse()
    content = answer.read()
    assert answer.status < 300, f"{method} {path} was answered with {answer.status}: {content[:500]!r}"
    return json.loads(content)


def _who_holds(scene: Scene, ports: set[int]) -> list[int]:
    """Pids of the web processes that have the other ends of connections from these ports."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, *_, inode = line.split()[:10]
        if _port(here) == scene.service.port and _port(there) in ports:
            found.add(f"socket:[{inode}]")
    return [pid for pid in scene.pids("gunicorn") if found & _files(pid)]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return found


def _disk_full(scene: Scene) -> None:
    filler = scene.directory / "data" / "filler"
    _fill(scene, filler)
    time.sleep(_FULL_SECONDS / 2)
    freed = _fill(scene, filler)
    scene.verdict.check(freed < _FREED_MOST, f"the disk did not stay full: {freed:,} bytes were free")
    time.sleep(_FULL_SECONDS / 2)
    filler.unlink()


def _fill(scene: Scene, path: Path) -> int:
    """Take all the room that there is on a file's disk; returns how much that was, in bytes."""
    taken = 0
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                taken += file.write(bytes(65_536))
        except OSError as error:
            scene.verdict.check(error.errno == errno.ENOSPC, f"the disk was not full: {error}")
    return taken


def _two_doors(_: Path) -> AbstractContextManager[Mapping[str, str]]:
    return nullcontext({"WEB_PROCESSES": str(_WEB_PROCESSES), "SOCKET_PROCESSES": "2"})


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
    over = time.time() - 2  # as the lines to come will say
    earliest = time.time() - 2
    said = from_text(scene.service.client.call("GET", "/status")["last_update"]).timestamp()
    latest = time.time() - 2
    right = earliest - 0.1 <= said <= latest + 0.1
    scene.verdict.check(right, f"the service's clock is {time.time() - said:.1f} s behind")
    return over


def _reads_nothing(scene: Scene, opened: websocket.WebSocket) -> str:
    scene.wait_for_line(1)  # before, there is nothing to read
    time.sleep(_STALL_SECONDS + 8)
    return "" if _is_cut(_wire(opened)) else "a client that read nothing was not thrown out"


def _reads_slowly(_scene: Scene, opened: websocket.WebSocket) -> str:
    until = time.monotonic() + _STALL_SECONDS + 8
    with suppress(OSError):  # it may be thrown out
        while time.monotonic() < until and _wire(opened).recv(1):
            time.sleep(1)
    return ""


def _floods(_scene: Scene, opened: websocket.WebSocket) -> str:
    with suppress(websocket.WebSocketException, OSError):  # it is told why below
        for _ in range(10_000):
            opened.send(b"x" * 1000)
    code = _close_code(opened)
    return "" if code == _POLICY_VIOLATION else f"a client that flooded was closed with {code}"


def _ten_clients(behave: Callable[[Scene, websocket.WebSocket], str], *options: tuple[int, int, int]) -> Injection:
    """Ten that behave so at once; `behave` says what is wrong with how they were borne, or nothing."""

    def inject(scene: Scene) -> None:
        def act() -> str:
            with closing(_open(scene, *options)) as opened:
                return behave(scene, opened)

        with ThreadPoolExecutor(10) as pool:
            for actor in [pool.submit(act) for _ in range(10)]:
                wrong = actor.result()
                scene.verdict.check(not wrong, wrong)

    return inject


def _clients_that_drop(scene: Scene) -> None:
    with ThreadPoolExecutor(500) as pool:
        opened = list(pool.map(lambda _: _open_at_last(scene), range(500)))
    for one in opened:
        _wire(one).close()
    scene.service.wait(lambda: scene.service.client.call("GET", "/status")["connected_clients"] <= VIEWERS)


def _interrupted(scene: Scene) -> None:
    """Ctrl-C, a start that is interrupted at any moment, and a start."""
    scene.verdict.check(scene.service.stop(signal.SIGINT) == 0, "Ctrl-C did not end the service with 0")
    code = scene.service.interrupt_start(scene.rng.uniform(0, 6))
    # A very early one ends Python itself, which has heard of no signal yet: a shell shows that as 130 too.
    scene.verdict.check(code in (0, 130, -signal.SIGINT), f"Ctrl-C while starting ended the service with {code}")
    scene.service.start()


# As a client far away has them: with what fits into this machine's own buffers, nobody would soon be too slow.
_SMALL = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096), (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536))
# More than a socket may have pending, in the time that the service bears a client that does not read.
_LOUD: dict[str, Any] = {"width": 4000}

FAULTS = [
    Fault("worker's parent killed", worker_killed(slice(0, 1))),
    Fault("worker's child killed", worker_killed(slice(1, 2))),
    Fault("worker killed, parent and child", worker_killed(slice(0, 2))),
    Fault("worker frozen for 60 s", worker_frozen),
    Fault("worker frozen for 60 s beside another", worker_frozen_beside_another),
    Fault("worker replaced twice (SIGTERM)", worker_replaced_twice),
    Fault("worker away while the run ends", worker_away_at_the_end, to_the_end=True),
    Fault(
        "shim killed",
        _shim_killed,
        ends_with="supervisor of the run was killed|could not be started",
        end_unseen=True,
        takes_lines_along=True,
    ),
    Fault("Redis restarted", _redis_restarted(signal.SIGTERM)),
    Fault("Redis killed", _redis_restarted(signal.SIGKILL)),
    Fault("Redis loses its newest second", _redis_loses, loses_events=True),
    Fault("Redis refuses connections for 30 s", _redis_refuses),
    Fault("Redis cuts subscribers", _clients_cut("pubsub")),
    Fault("Redis cuts all other clients", _clients_cut("normal")),
    Fault("Redis full", _redis_full),
    Fault("web process killed", _web_killed),
    Fault("web stopped with 200 sockets open", _web_stopped_with_sockets),
    Fault("two workers, two reconcilers", _two_of_each),
    Fault("poked five times", _poked_five_times),
    Fault("100 submissions, 40 cancels at once", _crowd, ground=_two_doors),
    Fault("disk full", _disk_full, ground=_small_disk, needs_root=True, nextflow_may_fail=True),
    # Nextflow has that clock too, and some of its versions do not bear a time that takes less than none.
    Fault("clock steps back 2 s", _clock_back, ground=_own_clock, nextflow_may_fail=True),
    Fault("client that never reads", _ten_clients(_reads_nothing, *_SMALL), harms_nobody=True, **_LOUD),
    Fault("client that reads a byte a second", _ten_clients(_reads_slowly, *_SMALL), harms_nobody=True, **_LOUD),
    Fault("client that floods", _ten_clients(_floods), harms_nobody=True),
    Fault("500 clients that connect and drop", _clients_that_drop, harms_nobody=True),
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


def _submit(scene: Scene) -> str:
    return scene.service.submit(scene.stage.pipeline, parameters=_QUEUED)


def _cancel(scene: Scene, run_id: str | None) -> bool:
    """Cancel that run, or whatever is active, on a connection of its own; returns whether it was taken."""
    with closing(HTTPConnection("127.0.0.1", scene.service.port, timeout=60)) as door:
        answer = _answer(door, "DELETE", f"/cancel?run_id={run_id}" if run_id else "/cancel")
    if answer["cancelled"]:
        scene.cancelled.add(answer["run_id"])
    return bool(answer["cancelled"])


def _open(scene: Scene, *options: tuple[int, int, int]) -> websocket.WebSocket:
    url = f"ws://127.0.0.1:{scene.service.port}/api/v1/pipeline/stream?run_id={scene.run_id}"
    return websocket.create_connection(url, timeout=60, sockopt=options)


def _open_at_last(scene: Scene) -> websocket.WebSocket:
    """Where so many come at once that some are told to come again, they do."""
    for _ in range(10):
        with suppress(websocket.WebSocketBadStatusException):
            return _open(scene)
        time.sleep(3)
    return _open(scene)


def _wire(opened: websocket.WebSocket) -> socket.socket:
    """What is under a WebSocket: to misbehave on it, or to drop it without a word."""
    assert opened.sock is not None
    return opened.sock


def _close_code(opened: websocket.WebSocket) -> int | None:
    """The code that a socket is closed with, after whatever else it is told."""
    with closing(opened):
        try:
            while True:
                # `recv_data` would answer the close, perhaps to nobody, and fail.
                frame = opened.recv_frame()  # type: ignore[no-untyped-call]
                if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                    return int.from_bytes(frame.data[:2], "big")
        except (websocket.WebSocketException, OSError):
            return None


def _is_cut(wire: socket.socket) -> bool:
    """Whether the other side sends no more, after what is on its way."""
    until = time.monotonic() + 15
    wire.settimeout(15)
    with suppress(TimeoutError):
        while time.monotonic() < until:
            try:
                if not wire.recv(65_536):
                    return True
            except ConnectionError:
                return True
    return False
