"""Growth with history: what a page of it, the status and a submission take, and what rest costs, as runs pile up."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.caller import API, Caller
from bench.fanout.publisher import log_event
from bench.figures import Row, Section, milliseconds, quantile
from bench.plot import Plot
from bench.processes import Used, serving
from bench.sizes import Sizes
from bench.stage import WEB_COMMAND, directory, http_server, redis_server, say, settings_alone
from bench.submit import WANTED
from ends import finish
from ports import free_port

from nfctl.children import Program
from shared import times
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import connect
from shared.runs import Run, RunStatus, new_run_id, new_session_id
from shared.settings import load
from shared.store import Store

_ASKED = 50
_POST_ROUNDS = 6
EVENTS = 20
"""How many log events the last of the runs that `fill` makes has, beside those of its states."""
_SETTLE_SECONDS = 10
_ALIVE, _HISTORY, _STATUS, _POST = "GET /healthz", "GET /history?limit=100", "GET /status", "POST /run"
_PATHS = {_ALIVE: "/healthz", _HISTORY: f"{API}/history?limit=100", _STATUS: f"{API}/status"}
_HEADINGS = (
    "runs",
    *(f"`{name}` (ms, p50 / p99)" for name in (_ALIVE, _HISTORY, _STATUS, _POST)),
    "p50 ÷ `GET /healthz`: history, status, POST",
    "CPU ms each, web and Redis: healthz, history, status, POST",
    "CPU at rest: web, reconciler, Redis (%)",
)
_NOTE = (
    "Web processes, reconciler and Redis, without a worker: what is submitted waits. `GET /healthz`, which asks Redis "
    "nothing, is the cost of a request itself. A page of history has fewer runs where there are fewer than 100. "
    "Each submission is one run more."
)


@dataclass(slots=True)
class Stage:
    """A controller with some runs in history, and what it took.

    `seconds` of each call, `cpu` seconds of each block of calls in all processes, and CPU at `rest` by process, in
    percent.
    """

    pids: Mapping[str, int]
    caller: Caller
    asks: Mapping[str, Callable[[], float]]
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rest: Mapping[str, float] = field(default_factory=dict)

    def ask(self, name: str) -> None:
        """So many times, one after the other. The first is not counted: it may be the first at all, and connects."""
        self.caller.close()
        self.asks[name]()
        used = [Used(self.pids[process]) for process in ("web", "Redis")]
        self.seconds[name] += [self.asks[name]() for _ in range(_ASKED)]
        self.cpu[name] += sum(one.seconds() for one in used)


def measure(sizes: Sizes) -> list[Section]:
    """A stage for each number of runs: all rest at once, and take turns to answer."""
    with ExitStack() as stack:
        found = {}
        for runs in sizes.history:
            found[runs] = stack.enter_context(_stage(runs))
            say(f"{runs:,} runs are in history")
        _rest(found.values(), sizes.seconds)
        # Submissions come last, for each is one more run.
        for name in (*(sizes.rounds * [*_PATHS]), *(_POST_ROUNDS * [_POST])):
            for one in found.values():
                one.ask(name)
    rows = [_row(runs, one) for runs, one in found.items()]
    lines = {
        name: [(float(runs), 1000 * quantile(one.seconds[name], 0.5)) for runs, one in found.items()]
        for name in (_ALIVE, _HISTORY, _STATUS, _POST)
    }
    plot = Plot("Calls as history grows", "runs in history", "milliseconds, p50", lines)
    return [Section("More history", rows, _HEADINGS, [_NOTE], {"history": plot})]


@contextmanager
def _stage(runs: int) -> Iterator[Stage]:
    with directory() as here, redis_server(here) as (url, redis):
        fill(url, runs)
        with _controller(url, here, redis) as (port, pids):
            caller = Caller(port)
            asks: dict[str, Callable[[], float]] = {name: partial(caller.get, path) for name, path in _PATHS.items()}
            yield Stage(pids, caller, asks | {_POST: partial(caller.post, f"{API}/run", WANTED)})
            caller.close()


def _rest(stages: Collection[Stage], seconds: int) -> None:
    time.sleep(_SETTLE_SECONDS)
    used = [{name: Used(pid) for name, pid in one.pids.items()} for one in stages]
    time.sleep(seconds)
    for one, its in zip(stages, used, strict=True):
        one.rest = {name: 100 * process.seconds() / seconds for name, process in its.items()}


def fill(redis_url: str, runs: int) -> None:
    """So many runs that have ended, each the only one of its time; the last one has said something."""
    redis, settings = connect(redis_url), load({"REDIS_URL": redis_url})
    store = Store(redis, settings)
    for left in reversed(range(runs)):
        now = times.now()
        run = Run(run_id=new_run_id(now), pipeline="bench", session_id=new_session_id(), queued_at=now)
        store.submit(run, "reject")
        if not left:
            held = Leases(redis).acquire(run.run_id)
            assert held is not None
            said = [log_event(run.run_id, number) for number in range(EVENTS)]
            Feed(redis, settings).append(run.run_id, held.fence, Batch(1, {}, said))
        finish(store, run.run_id, RunStatus.SUCCEEDED, message="1 task succeeded.", exit_code=0)


@contextmanager
def _controller(redis_url: str, here: Path, redis: int) -> Iterator[tuple[int, Mapping[str, int]]]:
    """The web processes' port, and the pids of what is at work."""
    port = free_port()
    its = settings_alone(REDIS_URL=redis_url, PORT=str(port), DATA_DIR=str(here))
    reconciler = Program("reconciler", [sys.executable, "-m", "worker.reconciler"], its, here / "reconciler.log")
    with http_server(WEB_COMMAND, its, here, port, "/healthz") as web, serving(reconciler, lambda: True) as pid:
        yield port, {"web": web, "reconciler": pid, "Redis": redis}


def _row(runs: int, found: Stage) -> Row:
    alive = quantile(found.seconds[_ALIVE], 0.5)
    names = (_HISTORY, _STATUS, _POST)
    return (
        f"{runs:,}",
        *(milliseconds(found.seconds[name]) for name in (_ALIVE, *names)),
        " / ".join(f"{quantile(found.seconds[name], 0.5) / alive:.1f}" for name in names),
        " / ".join(f"{1000 * found.cpu[name] / len(found.seconds[name]):.1f}" for name in (_ALIVE, *names)),
        " / ".join(f"{percent:.1f}" for percent in found.rest.values()),
    )
