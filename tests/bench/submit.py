"""Submissions: `POST /run` beside a bare Celery `send_task` to the same Redis, while the queue grows."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from bench.caller import API, Caller
from bench.figures import Row, Section, compared, latencies, quantile, ratio
from bench.plot import Plot, Points
from bench.processes import cpu_seconds, own_cpu_seconds
from bench.sizes import Sizes
from bench.stage import directory, printing, redis_server, service_with_child
from celery import Celery
from redis import Redis

Submit = Callable[[], float]
"""Submits once and gives the seconds it took."""

WANTED: Mapping[str, Any] = {"pipeline": "bench", "when_busy": "queue", "parameters": {"sample": "s1", "depth": 30}}
"""A run that waits for its turn."""

_BLOCK = 100
_AT_ONCE = 8
_ASKED = 20
_NOTE = (
    "A run holds the slot meanwhile, so every other one waits. The whole service is up, and Redis writes to its file. "
    "CPU is of the web processes and Redis for a POST, of the caller and Redis for `send_task`."
)


@dataclass(slots=True)
class Side:
    """One of the two ways to submit: the seconds of each, and CPU seconds and bytes of Redis of each block."""

    submit: Submit
    cpu_so_far: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    def block(self, redis: Any) -> None:
        """Submit a hundred times."""
        before, used = redis.info("memory")["used_memory"], self.cpu_so_far()
        self.seconds += [self.submit() for _ in range(_BLOCK)]
        self.cpu.append((self.cpu_so_far() - used) / _BLOCK)
        self.bytes.append((redis.info("memory")["used_memory"] - before) // _BLOCK)


def measure(sizes: Sizes) -> list[Section]:
    """Both ways, turn by turn, until so many wait on each."""
    with (
        directory() as here,
        redis_server(here, "--appendonly", "yes") as (url, redis_pid),
        service_with_child(REDIS_URL=url) as running,
    ):
        running.submit("bench", parameters=printing(1, 100_000))
        web = running.children("gunicorn")[0]
        callers = [Caller(running.port) for _ in range(_AT_ONCE)]
        send = send_task(url)
        posts = Side(post(callers[0]), lambda: cpu_seconds(web) + own_cpu_seconds(redis_pid))
        sends = Side(send, lambda: time.process_time() + own_cpu_seconds(redis_pid))
        for side in (posts, sends):  # connections are made, code is loaded
            for _ in range(_ASKED):
                side.submit()
        statuses = _grow(sizes.queue, posts, sends, callers[0], Redis.from_url(url))
        each = max(1, sizes.queue // 100)
        rates = [
            (_rate([post(one) for one in callers], each), _rate([send] * _AT_ONCE, each)) for _ in range(sizes.rounds)
        ]
    return [
        Section(
            "Submitting a run",
            _rows(posts, sends, statuses, rates),
            notes=[_NOTE],
            plots=_plots(posts, sends, statuses),
        )
    ]


def post(caller: Caller) -> Submit:
    """`POST /run` by that caller."""
    return lambda: caller.post(f"{API}/run", WANTED)


def send_task(redis_url: str) -> Submit:
    """A Celery task to a queue that nobody reads."""
    app = Celery("bare", broker=redis_url, set_as_current=False)
    app.conf.update(task_default_queue="bare", task_ignore_result=True)

    def send() -> float:
        began = time.perf_counter()
        app.send_task("run", args=[str(uuid.uuid4())])
        return time.perf_counter() - began

    return send


def _grow(size: int, posts: Side, sends: Side, caller: Caller, redis: Any) -> dict[int, list[float]]:
    """Submit in turns; returns what `GET /status` took, by how many waited."""

    def ask() -> list[float]:
        return [caller.get(f"{API}/status") for _ in range(_ASKED)]

    statuses = {_ASKED: ask()}
    blocks = size // _BLOCK
    for block in range(1, blocks + 1):
        posts.block(redis)
        sends.block(redis)
        if block in (1, 2, 5) or block % max(1, blocks // 5) == 0:
            statuses[block * _BLOCK + _ASKED] = ask()
    return statuses


def _rate(ways: Sequence[Submit], each: int) -> float:
    """Submissions a second when all go on at once."""

    def some(submit: Submit) -> None:
        for _ in range(each):
            submit()

    began = time.monotonic()
    with ThreadPoolExecutor(len(ways)) as pool:
        list(pool.map(some, ways))
    return each * len(ways) / (time.monotonic() - began)


def _rows(
    posts: Side, sends: Side, statuses: Mapping[int, list[float]], rates: Sequence[tuple[float, float]]
) -> list[Row]:
    tenth = len(posts.seconds) // 10
    mine, his = 1 / mean(posts.seconds), 1 / mean(sends.seconds)
    many, tasks = [rate for rate, _ in rates], [rate for _, rate in rates]
    (few, at_first), *_, (most, at_last) = statuses.items()
    return [
        latencies(f"`POST /run`, the first {tenth:,}", "`send_task`", posts.seconds[:tenth], sends.seconds[:tenth]),
        latencies(
            f"… the last {tenth:,}, of {most:,} that wait",
            "`send_task`",
            posts.seconds[-tenth:],
            sends.seconds[-tenth:],
        ),
        compared(
            "CPU of each (ms)", "`send_task`", [1000 * one for one in posts.cpu], [1000 * one for one in sends.cpu]
        ),
        ("Submissions a second, one caller", f"{mine:,.0f}", f"{his:,.0f} `send_task`", ratio(mine, his)),
        compared(f"… {_AT_ONCE} callers", "`send_task`", many, tasks, "{:,.0f}"),
        compared("Memory of Redis for each that waits (bytes)", "`send_task`", posts.bytes, sends.bytes, "{:,.0f}"),
        latencies(f"`GET /status`, {most:,} wait", f"with {few} that wait", at_last, at_first),
    ]


def _plots(posts: Side, sends: Side, statuses: Mapping[int, list[float]]) -> dict[str, Plot]:
    def by_block(side: Side) -> list[tuple[float, float]]:
        step = max(_BLOCK, len(side.seconds) // 20)
        starts = range(0, len(side.seconds), step)
        return [(start + step, 1000 * median(side.seconds[start : start + step])) for start in starts]

    lines: dict[str, Points] = {
        "POST /run": by_block(posts),
        "send_task": by_block(sends),
        "GET /status": [(waiting, 1000 * quantile(taken, 0.5)) for waiting, taken in statuses.items()],
    }
    return {"queue": Plot("While the queue grows", "runs that wait", "milliseconds, p50", lines)}
