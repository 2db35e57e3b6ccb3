"""Start-up and rest: from `nfctl up` to healthy, what imports take, and what all processes cost that have no work."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from statistics import median

from bench.figures import Row, Section, compared, ratio
from bench.processes import cpu_seconds, cpu_to_end, environment, family, memory, own_cpu_seconds, serving
from bench.sizes import Sizes
from bench.stage import PLAIN_COMMAND, directory, http_server, redis_server, service, settings_alone
from ports import free_port
from service_process import Service

from nfctl.children import Program

_LIBRARIES = "import flask, celery, redis"
_OURS = ("web.wsgi", "worker.app", "worker.reconciler", "nfctl.cli")
# `nfctl up` itself, the worker, the reconciler, the web server and Flower.
_PYTHONS = 5
_IMPORT_ROUNDS = 3
_IMPORT_HEADINGS = ("Python that runs", "ms", "CPU ms", "CPU ÷ `pass`", "CPU ÷ the libraries")
_SETTLE_SECONDS = 10
_FEW = 4
_CELERY = (sys.executable, "-m", "celery", "-A", "bench.peers.bare_celery", "--skip-checks")
_WORKER = (*_CELERY, "worker", "--without-mingle", "--without-gossip", "-P", "prefork", "-c", "1")
_PROGRAMS = {
    "nfctl up": "bare Python",
    "redis-server": "bare redis-server",
    "worker@": "bare Celery worker",
    "worker.reconciler": "bare Python",
    "gunicorn": "bare gunicorn, gevent, 2 workers",
    "flower": "Flower of that worker",
}
_NOTE = (
    "CPU is in percent of one processor, memory proportional (PSS); no run, no viewer. The bare ones idle in the same "
    "seconds: a Celery app and a Flask app that can do nothing, on a Redis of their own."
)


def measure(sizes: Sizes) -> list[Section]:
    """Start-up, imports, idle."""
    return [
        Section("Starting", _up(sizes.rounds)),
        Section("Imports", _imports(sizes.rounds * _IMPORT_ROUNDS), _IMPORT_HEADINGS),
        Section("At rest", _idle(2 * sizes.seconds), notes=[_NOTE]),
    ]


def _up(rounds: int) -> list[Row]:
    """The whole service, beside its Redis and so many Pythons that do nothing, one after another."""
    ours, bare = [], []
    parts: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    for _ in range(rounds):
        with directory() as here:
            began = time.monotonic()
            running = Service(here / "data")
            running.start()
            ours.append((time.monotonic() - began, cpu_seconds(running.pid)))
            for name, pids in by_program(running).items():
                parts[name].append(sum(map(own_cpu_seconds, pids)))
            running.kill()
        with directory() as here:
            began = time.monotonic()
            with redis_server(here) as (_, pid):
                seconds, cpu = time.monotonic() - began, own_cpu_seconds(pid)
            pythons = [_timed("pass") for _ in range(_PYTHONS)]
        bare.append((seconds + sum(wall for wall, _ in pythons), cpu + sum(used for _, used in pythons)))
    pass_alone = [_timed("pass")[1] for _ in range(rounds)]
    other = f"one redis-server and {_PYTHONS} `python -c pass`"
    return [
        compared("`nfctl up` to healthy (s)", other, [wall for wall, _ in ours], [wall for wall, _ in bare]),
        compared("… CPU (s)", other, [cpu for _, cpu in ours], [cpu for _, cpu in bare]),
        *(compared(f"… of it {name} (s)", "`python -c pass`", used, pass_alone) for name, used in parts.items()),
    ]


def by_program(running: Service) -> dict[str, list[int]]:
    """The processes of the service by what they are."""
    return {name: running.children(name) for name in _PROGRAMS} | {"nfctl up": [running.pid]}


def _imports(rounds: int) -> list[Row]:
    """What each module takes that a process begins with, beside the libraries and beside nothing."""
    codes = {"pass": "pass", _LIBRARIES: _LIBRARIES} | {f"import {name}": f"import {name}" for name in _OURS}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            took[name].append(_timed(code))
    walls = {name: median(wall for wall, _ in each) for name, each in took.items()}
    cpus = {name: median(cpu for _, cpu in each) for name, each in took.items()}
    return [
        (
            f"`{name}`",
            f"{1000 * walls[name]:,.0f}",
            f"{1000 * cpus[name]:,.0f}",
            ratio(cpus[name], cpus["pass"]),
            ratio(cpus[name], cpus[_LIBRARIES]),
        )
        for name in codes
    ]


def _timed(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a Python that runs this and ends."""
    began = time.perf_counter()
    # Nothing is contacted by an import, but an address must be there.
    its = settings_alone(REDIS_URL="redis://127.0.0.1:6379/0")
    used = cpu_to_end([sys.executable, "-c", code], its=its)
    return time.perf_counter() - began, used


def _idle(seconds: int) -> list[Row]:
    with service() as running, _peers() as peers:
        time.sleep(_SETTLE_SECONDS)
        ours = by_program(running)
        pids = [pid for group in (*ours.values(), *peers.values()) for pid in group]
        before = {pid: own_cpu_seconds(pid) for pid in pids}
        time.sleep(seconds)
        percent = {pid: 100 * (own_cpu_seconds(pid) - before[pid]) / seconds for pid in pids}
        mib = {pid: memory(pid) for pid in pids}
    groups = [(name, other, ours[name], peers[other]) for name, other in _PROGRAMS.items()]
    groups.append(("all", "all these", [*chain(*ours.values())], [*chain(*peers.values())]))
    return [
        *(_row(f"CPU of {name} (%)", other, mine, his, percent, "{:.2f}") for name, other, mine, his in groups),
        *(_row(f"Memory of {name} (MiB PSS)", other, mine, his, mib, "{:.0f}") for name, other, mine, his in groups),
    ]


def _row(what: str, other: str, ours: Sequence[int], theirs: Sequence[int], of: Mapping[int, float], form: str) -> Row:
    """Each process of ours and of theirs, and the ratio of the sums; of many only the sum is shown."""
    mine, his = ([of[pid] for pid in pids] for pids in (ours, theirs))
    shown, beside = (
        " + ".join(map(form.format, each)) if len(each) <= _FEW else form.format(sum(each)) for each in (mine, his)
    )
    return what, shown, f"{beside} {other}", ratio(sum(mine), sum(his))


@contextmanager
def _peers() -> Iterator[Mapping[str, Sequence[int]]]:
    """Processes that do nothing, by what they are."""
    with ExitStack() as stack:
        here = stack.enter_context(directory())
        url, redis = stack.enter_context(redis_server(here))
        its = environment() | {"BENCH_REDIS": url}
        python = stack.enter_context(
            _up_at_once("python", [sys.executable, "-c", "import time; time.sleep(3600)"], its, here)
        )
        worker = stack.enter_context(_up_at_once("worker", _WORKER, its, here))
        port, flower_port = free_port(), free_port()
        gunicorn = [*PLAIN_COMMAND, "-w", "2", "-b", f"127.0.0.1:{port}", "bench.peers.bare_flask:app"]
        web = stack.enter_context(http_server(gunicorn, its, here, port, "/"))
        flower_command = [*_CELERY, "flower", "--address=127.0.0.1", f"--port={flower_port}"]
        flower = stack.enter_context(http_server(flower_command, its, here, flower_port, "/"))
        yield {
            "bare Python": [python],
            "bare redis-server": [redis],
            "bare Celery worker": family(worker),
            "bare gunicorn, gevent, 2 workers": family(web),
            "Flower of that worker": family(flower),
        }


@contextmanager
def _up_at_once(name: str, command: Sequence[str], its: Mapping[str, str], here: Path) -> Iterator[int]:
    """A process that need not be asked whether it is ready."""
    with serving(Program(name, command, its, here / f"{name}.log"), lambda: True) as pid:
        yield pid
