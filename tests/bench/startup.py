"""Start-up and rest: from `nfctl up` to healthy, what imports take, and what all processes cost that have no work."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Row, Section, compared, ratio
from bench.processes import cpu_seconds, environment, family, memory, own_cpu_seconds, serving
from bench.sizes import Sizes
from bench.stage import directory, http_server, redis_server, service, settings_alone
from ports import free_port
from service_process import Service

from nfctl.children import Program

_LIBRARIES = "import flask, celery, redis"
_OURS = ("web.wsgi", "worker.app", "worker.reconciler", "nfctl.cli")
# `nfctl up` itself, the worker, the reconciler, the web server and Flower.
_PYTHONS = 5
_IMPORT_ROUNDS = 3
_SETTLE_SECONDS = 10
_CELERY = (sys.executable, "-m", "celery", "-A", "bench.peers.bare_celery", "--skip-checks")
_WORKER = (*_CELERY, "worker", "--without-mingle", "--without-gossip", "-P", "prefork", "-c", "1")
_GUNICORN = (sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "2", "--no-control-socket")
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
        Section("Starting", [*_up(sizes.rounds), *_imports(sizes.rounds * _IMPORT_ROUNDS)]),
        Section("At rest", _idle(2 * sizes.seconds), notes=[_NOTE]),
    ]


def _up(rounds: int) -> list[Row]:
    """The whole service, beside its Redis and so many Pythons that do nothing, one after another."""
    ours, bare = [], []
    for _ in range(rounds):
        with directory() as here:
            began = time.monotonic()
            running = Service(here / "data")
            running.start()
            ours.append((time.monotonic() - began, cpu_seconds(running.pid)))
            running.kill()
        with directory() as here:
            began = time.monotonic()
            with redis_server(here) as (_, pid):
                seconds, cpu = time.monotonic() - began, own_cpu_seconds(pid)
            pythons = [_timed("pass") for _ in range(_PYTHONS)]
        bare.append((seconds + sum(wall for wall, _ in pythons), cpu + sum(used for _, used in pythons)))
    other = f"one redis-server and {_PYTHONS} `python -c pass`"
    return [
        compared("`nfctl up` to healthy (s)", other, [wall for wall, _ in ours], [wall for wall, _ in bare]),
        compared("… CPU (s)", other, [cpu for _, cpu in ours], [cpu for _, cpu in bare]),
    ]


def _imports(rounds: int) -> list[Row]:
    codes = {name: f"import {name}" for name in _OURS} | {"": _LIBRARIES, "pass": "pass"}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            took[name].append(_timed(code))
    rows = []
    for name in _OURS:
        for says, which in (("", 0), ("… CPU", 1)):
            mine, libraries, nothing = ([1000 * one[which] for one in took[key]] for key in (name, "", "pass"))
            what = f"`import {name}` (ms)" if not says else f"{says} (ms)"
            rows.append(compared(what, f"`{_LIBRARIES}`", mine, libraries, "{:,.0f}"))
            if name == _OURS[-1]:
                rows.append(compared(what, "`python -c pass`", mine, nothing, "{:,.0f}"))
    return rows


def _timed(code: str) -> tuple[float, float]:
    """Wall and CPU seconds of a Python that runs this and ends."""
    began = time.perf_counter()
    # Nothing is contacted by an import, but an address must be there.
    its = settings_alone(REDIS_URL="redis://127.0.0.1:6379/0")
    child = subprocess.Popen([sys.executable, "-c", code], env=its, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, code
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def _idle(seconds: int) -> list[Row]:
    with service() as running, _peers() as peers:
        time.sleep(_SETTLE_SECONDS)
        ours = {name: running.children(name) for name in _PROGRAMS} | {"nfctl up": [running.pid]}
        pids = [pid for group in (*ours.values(), *peers.values()) for pid in group]
        before = {pid: own_cpu_seconds(pid) for pid in pids}
        time.sleep(seconds)
        percent = {pid: 100 * (own_cpu_seconds(pid) - before[pid]) / seconds for pid in pids}
        mib = {pid: memory(pid) for pid in pids}
    rows = []
    for what, unit, of, form in (("CPU", "%", percent, "{:.2f}"), ("Memory", "MiB", mib, "{:.0f}")):
        for name, other in _PROGRAMS.items():
            mine, his = ([of[pid] for pid in group] for group in (ours[name], peers[other]))
            shown, beside = (" + ".join(form.format(one) for one in group) for group in (mine, his))
            rows.append((f"{what} of {name} ({unit})", shown, f"{beside} {other}", ratio(sum(mine), sum(his))))
        mine, his = ([of[pid] for pids in groups.values() for pid in pids] for groups in (ours, peers))
        rows.append(
            (
                f"{what} of all ({unit})",
                form.format(sum(mine)),
                f"{form.format(sum(his))} all these",
                ratio(sum(mine), sum(his)),
            )
        )
    return rows


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
        gunicorn = [*_GUNICORN, "-b", f"127.0.0.1:{port}", "bench.peers.bare_flask:app"]
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
