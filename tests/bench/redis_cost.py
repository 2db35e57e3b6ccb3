"""Redis: commands, bytes and time that an event costs there, beside a bare PUBLISH of the same frame."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.fanout import build
from bench.fanout.publisher import CHANNEL
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened, publishing
from bench.figures import Row, Section, ratio
from bench.processes import own_cpu_seconds
from bench.sizes import Sizes
from bench.stage import directory, redis_server, say, subscribed
from redis import Redis

_RATE = 100
_VIEWERS = 10
_PROCESSES = (1, 2)
_FIGURES = {
    "commands": "commands, those inside scripts too",
    "bytes_in": "bytes to Redis",
    "bytes_out": "bytes from Redis",
    "cpu": "CPU of Redis (µs)",
}
_ASIDE = ("info", "config|resetstat", "config")
_NOTE = (
    f"{_RATE} events/s of five lines each, with {_VIEWERS} viewers; what Redis does anyway in the same time without "
    "events is taken off. Beside it the same frame is published to as many plain subscribers as there are processes."
)


@dataclass(frozen=True, slots=True)
class Work:
    """What Redis has done in some time."""

    seconds: float
    calls: dict[str, float]
    bytes_in: float
    bytes_out: float
    cpu: float

    @property
    def commands(self) -> float:
        """All of them."""
        return sum(self.calls.values())

    def each(self, idle: "Work", events: int) -> "Work":
        """The share of one event, without what goes on anyway. `cpu` in microseconds."""
        times = self.seconds / idle.seconds
        names = self.calls.keys() | idle.calls.keys()
        return Work(
            self.seconds / events,
            {name: (self.calls.get(name, 0) - times * idle.calls.get(name, 0)) / events for name in names},
            (self.bytes_in - times * idle.bytes_in) / events,
            (self.bytes_out - times * idle.bytes_out) / events,
            1e6 * (self.cpu - times * idle.cpu) / events,
        )


class Watch:
    """Looks at a Redis, and tells what it has done since the last look."""

    def __init__(self, url: str, pid: int) -> None:
        self._redis: Any = Redis.from_url(url)
        self._pid = pid
        self._began, self._used = 0.0, 0.0

    def begin(self) -> None:
        """From now on."""
        self._redis.config_resetstat()
        self._began, self._used = time.monotonic(), own_cpu_seconds(self._pid)

    def end(self) -> Work:
        """What was done since."""
        seconds, cpu = time.monotonic() - self._began, own_cpu_seconds(self._pid) - self._used
        said, traffic = self._redis.info("commandstats"), self._redis.info("stats")
        calls = {name.removeprefix("cmdstat_"): float(stat["calls"]) for name, stat in said.items()}
        kept = {name: count for name, count in calls.items() if name not in _ASIDE}
        return Work(seconds, kept, traffic["total_net_input_bytes"], traffic["total_net_output_bytes"], cpu)


def measure(sizes: Sizes) -> list[Section]:
    """With one process that holds sockets and with two."""
    rows: list[Row] = []
    notes = [_NOTE]
    for processes in _PROCESSES:
        load = Load(_VIEWERS, _RATE, max(2, sizes.seconds // 2), processes)
        pairs = [(_ours(load), _bare(load, processes)) for _ in range(sizes.rounds)]
        held = f"{processes} socket process{'es' if processes > 1 else ''}"
        for name, says in _FIGURES.items():
            mine, his = (median(getattr(side, name) for side in sides) for sides in zip(*pairs, strict=True))
            rows.append((f"An event, {held}: {says}", f"{mine:,.1f}", f"{his:,.1f} PUBLISH", ratio(mine, his)))
        calls = sorted(pairs[-1][0].calls.items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{name.upper()} {count:.2f}" for name, count in calls if count >= 0.01)
        notes.append(f"Commands of one event with {held}: {said}.")
    return [Section("What an event costs in Redis", rows, notes=notes)]


def _ours(load: Load) -> Work:
    """Of an event that a supervisor appends."""
    with opened(SERVERS["ours"](say), load, build.load_program(say)) as cast:
        watch = Watch(cast.stage.redis_url, cast.redis)
        idle = _idle(watch, load)
        watch.begin()
        cast.publish()
        cast.published(load)
        work = watch.end()
        cast.whole_report()
        return work.each(idle, load.rate * load.seconds)


def _bare(load: Load, subscribers: int) -> Work:
    """Of a frame that is published to a channel, and nothing else."""
    with ExitStack() as stack:
        here = stack.enter_context(directory())
        url, pid = stack.enter_context(redis_server(here))
        for _ in range(subscribers):
            stack.enter_context(subscribed(url, CHANNEL, lambda _: None))
        publisher, _ = stack.enter_context(publishing("channel", load, url, here))
        watch = Watch(url, pid)
        idle = _idle(watch, load)
        watch.begin()
        publisher.tell("go")
        publisher.hear(load.seconds + 60)
        return watch.end().each(idle, load.rate * load.seconds)


def _idle(watch: Watch, load: Load) -> Work:
    watch.begin()
    time.sleep(load.seconds)
    return watch.end()
