"""A burst: what a run that prints more than anybody reads does to the calls of others, and to who joins meanwhile."""

import json
import multiprocessing
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.caller import API, Caller
from bench.fanout import build
from bench.figures import Row, Section, milliseconds, ratio, ratios
from bench.processes import TrialFailed, Used, environment, said
from bench.sizes import Sizes
from bench.stage import (
    CUT,
    KEPT_LINES,
    STREAM,
    Closed,
    directory,
    printing,
    say,
    service_with_child,
    socket_events,
    write_child,
)
from bench.status import Taken, who_answers
from service_process import Service

from shared.events import LINES_PER_EVENT

_AGAIN = 1013
_BETWEEN_JOINS = 0.2
_LEFT_SECONDS = 1.0
_SECONDS_TO_BEGIN = 30
_PATIENCE = 60.0
_LEAST_RATE = 0.9
_JOINED = "A socket opened, to the newest line there was"
_HEADINGS = (
    "what, while a run prints so many lines a second",
    "ms, p50 / p99",
    "beside the first",
    "beside the second",
    "CPU ms of who answers",
    "beside the first",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """How many lines a second a run prints, how many watch it, and what a program beside the service prints to a file.

    That takes of the machine what a burst takes of it in any case.
    """

    rate: int
    viewers: int
    beside: int = 0

    def __str__(self) -> str:
        told = f"{self.rate:,} lines/s, {self.viewers} watch"
        return f"{told}, and a program beside prints {self.beside:,} to a file" if self.beside else told


_BURST = 100_000
_CALM, _BESIDE = Scene(20, 1), Scene(20, 1, _BURST)
_SCENES = (_CALM, _BESIDE, Scene(_BURST, 1), Scene(_BURST, 8))


@dataclass(slots=True)
class Found(Taken):
    """What calls and joins took in a scene; how often who watched or joined was closed, by code."""

    rates: list[float] = field(default_factory=list)
    processors: list[float] = field(default_factory=list)
    sent_away: Counter[int] = field(default_factory=Counter)
    joined_again: Counter[int] = field(default_factory=Counter)


def measure(sizes: Sizes) -> list[Section]:
    """The scenes in turns."""
    program = build.load_program(say)
    found = {scene: Found() for scene in _SCENES}
    with directory() as here, service_with_child() as running, readers() as pool:
        answers = who_answers(running.children("gunicorn"), running.port)
        for _ in range(sizes.rounds):
            for scene, one in found.items():
                with _printing_beside(scene, sizes.seconds, here):
                    _play(running, scene, sizes.seconds, one, pool, program, answers)
                say(f"{scene}: {one.rates[-1]:,.0f} lines/s, sent away: {_told(one.sent_away)}")
    rows = [_row(name, scene, found) for name in found[_SCENES[0]].seconds for scene in _SCENES]
    notes = [
        f"{scene}: printed {min(one.rates):,.0f} to {max(one.rates):,.0f} a second; the service took "
        f"{median(one.processors):.2f} processors. Who came again: viewers, {_told(one.sent_away)}; of the "
        f"{len(one.seconds[_JOINED])} that joined, {_told(one.joined_again)}."
        for scene, one in found.items()
    ]
    notes.append("Default retention. Whoever read saw each event once and in order, from where the first frame said.")
    return [Section("A burst", rows, _HEADINGS, notes)]


def _told(closes: Counter[int]) -> str:
    """How often, with a goodbye that says so and without any."""
    return f"{closes[_AGAIN]} times told so ({_AGAIN}), {closes[CUT]} times cut off"


def _row(name: str, scene: Scene, found: dict[Scene, Found]) -> Row:
    mine, calm, beside = (found[one].seconds[name] for one in (scene, _CALM, _BESIDE))
    cpu, calm_cpu = (found[one].cpu.get(name) for one in (scene, _CALM))
    used = (f"{median(cpu):.2f}", ratio(median(cpu), median(calm_cpu))) if cpu and calm_cpu else ("–", "–")
    return f"{name}: {scene}", milliseconds(mine), ratios(mine, calm), ratios(mine, beside), *used


@contextmanager
def _printing_beside(scene: Scene, seconds: int, here: Path) -> Iterator[None]:
    """What the scene has printed beside the service, through a pipe as a run's log goes, for somewhat longer."""
    if not scene.beside:
        yield
        return
    parameters = here / "parameters.json"
    parameters.write_text(json.dumps(printing(scene.beside, scene.beside * (seconds + _SECONDS_TO_BEGIN))))
    command = [str(write_child(here)), "-params-file", str(parameters)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as child,
        subprocess.Popen(["tee", str(here / "log")], stdin=child.stdout, stdout=subprocess.DEVNULL) as copy,
    ):
        try:
            yield
        finally:
            child.kill()
            copy.kill()


def readers() -> ProcessPoolExecutor:
    """Whoever reads a burst is load, and must not be so in the process that measures."""
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


def begin(
    running: Service, scene: Scene, seconds: int, pool: ProcessPoolExecutor, program: Path
) -> tuple[str, Future[dict[str, Any]]]:
    """A run that prints for somewhat longer than that, and what those that watch it tell; see `_watch`."""
    run_id = running.submit("bench", parameters=printing(scene.rate, _lines(scene, seconds)))
    running.wait(lambda: running.run(run_id)["status"] == "running", _SECONDS_TO_BEGIN)
    return run_id, pool.submit(_watch, program, running.port, run_id, scene.viewers, seconds + _PATIENCE)


def _lines(scene: Scene, seconds: int) -> int:
    return scene.rate * (seconds + 2)


def _play(
    running: Service,
    scene: Scene,
    seconds: int,
    found: Found,
    pool: ProcessPoolExecutor,
    program: Path,
    answers: int,
) -> None:
    """Raises TrialFailed when the run did not print as fast as it should, or somebody was not served in order."""
    run_id, watching = begin(running, scene, seconds, pool, program)
    joining = pool.submit(_join, running.port, run_id, seconds - _LEFT_SECONDS)
    used = Used(running.pid)
    _call(running.port, run_id, time.monotonic() + seconds, found, answers)
    found.processors.append(used.seconds() / seconds)
    joined, again = joining.result()
    found.seconds[_JOINED] += joined
    found.joined_again += again
    seen = watching.result()
    found.sent_away += Counter({_AGAIN: seen["told"], CUT: seen["cut"]})
    found.rates.append((_lines(scene, seconds) - 1) / (seen["last"] - seen["first"]))
    if found.rates[-1] < _LEAST_RATE * scene.rate:
        raise TrialFailed(f"The run printed only {found.rates[-1]:,.0f} of {scene.rate:,} lines a second.")


def _call(port: int, run_id: str, until: float, found: Found, answers: int) -> None:
    paths = {"`GET /healthz`": "/healthz", "`GET /status`": f"{API}/status", "`GET /history`": f"{API}/history"}
    paths["`GET /runs/RUN/logs?tail=100`"] = f"{API}/runs/{run_id}/logs?tail=100"
    caller = Caller(port)
    while time.monotonic() < until:
        for name, path in paths.items():
            found.ask(caller, answers, path, name)
    caller.close()


def _watch(program: Path, port: int, run_id: str, viewers: int, seconds: float) -> dict[str, Any]:
    """What so many saw of a run to its end; who was closed came again. Raises TrialFailed unless all was in order."""
    where = ["-host", f"127.0.0.1:{port}", "-path", f"{STREAM}?run_id={run_id}"]
    told, _ = said([str(program), *where, "-watchers", str(viewers)], environment(), seconds)
    seen: dict[str, Any] = json.loads(told)
    if seen["wrong"] or seen["failure"]:
        raise TrialFailed(f"Those that watch were not served as they should be: {seen}")
    return seen


def _join(port: int, run_id: str, seconds: float) -> tuple[list[float], Counter[int]]:
    """One after the other for so long: the seconds that each took, and how often one had to come again."""
    until = time.monotonic() + seconds
    took: list[float] = []
    again = Counter[int]()
    while time.monotonic() < until:
        began = time.monotonic()
        while not isinstance(came := _newest(port, run_id), float):
            again[came] += 1
            if time.monotonic() > began + _PATIENCE:
                raise TrialFailed("Who joins is never served.")
        took.append(came - began)
        time.sleep(_BETWEEN_JOINS)
    return took, again


def _newest(port: int, run_id: str) -> float | int:
    """When the last event was read that there was as a socket was opened for all that is kept, or why it was closed.

    Raises TrialFailed if any is missing, or fewer lines are there than should be kept.
    """
    last, wanted, newest, had = 0, 0, 0, 0
    try:
        for event, _ in socket_events(port, run_id):
            if event["id"] is None:  # what was told first may be gone when it is read, and then this is told anew
                wanted = event["data"].get("last_id", wanted)
            elif event["type"] == "log":
                newest = event["data"]["lines"][-1]["line"]
                had += len(event["data"]["lines"])
            else:
                had += 1
            last = _next(event, last)
            if last >= wanted:
                if had < min(newest, KEPT_LINES - LINES_PER_EVENT):
                    raise TrialFailed(f"Of {newest:,} lines only {had:,} were kept, and not {KEPT_LINES:,}.")
                return time.monotonic()
    except Closed as closed:
        return _expected(closed)
    raise TrialFailed("A run ended before who joined had what there was.")


def _expected(closed: Closed) -> int:
    """The code of a socket that is to come again. Raises Closed for any other."""
    if closed.code not in (_AGAIN, CUT):
        raise closed
    return closed.code


def _next(event: dict[str, Any], last: int) -> int:
    """The id after that event. Raises TrialFailed if it is not the next one."""
    if event["id"] is None:
        return max(last, int(event["data"].get("first_id", 0)) - 1)
    if event["id"] != last + 1:
        raise TrialFailed(f"Event {event['id']} came where {last + 1} was due.")
    return int(event["id"])
