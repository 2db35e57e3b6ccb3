"""Joining while many watch: what late joiners and their replays cost the others, and whether they miss anything."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import websocket
from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened
from bench.figures import Row, Section, ratio
from bench.processes import TrialFailed, allow_files
from bench.sizes import Sizes
from bench.stage import say

_RATE = 20
_JOINERS = 10
_STAY_SECONDS = 0.5
# With five lines each: what is kept of a run by default.
_KEPT = 2_000
_SILENCE_SECONDS = 20
_HEADINGS = (
    "what",
    "joined",
    "events replayed",
    "p50 / p99 ms of those that stay",
    "beside it",
    "ratio",
    "CPU µs a delivery",
    "beside it",
    "ratio",
)


@dataclass(slots=True)
class Joiners:
    """Some that come, stay for a moment and come again, each with the id of the last event it has, or with none.

    `wrong` counts events that came twice, too late or never.
    """

    url: str
    joined: int = 0
    replayed: int = 0
    wrong: int = 0
    failure: Exception | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """In the block. Raises TrialFailed afterwards if one of them could not be served."""
        threads = [threading.Thread(target=self._come_and_go, args=(random.Random(n),)) for n in range(_JOINERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        if self.failure is not None:
            raise TrialFailed(f"One that joined late was not served: {self.failure}")

    def _come_and_go(self, chance: random.Random) -> None:
        last = 0
        try:
            while not self._over.is_set():
                last = self._join(0 if chance.random() < 0.5 else last, chance.uniform(0, 2 * _STAY_SECONDS))
        except Exception as error:  # whatever it is, it must not pass for being served
            self.failure = error

    def _join(self, since: int, stay: float) -> int:
        """See what there is after `since`, and for some seconds what comes; returns the id of the last event."""
        wrong = 0
        with closing(websocket.create_connection(f"{self.url}&since={since}", timeout=_SILENCE_SECONDS)) as wire:
            told = _frame(wire)["data"]
            kept = int(told["last_id"])
            last = since = max(since, int(told["first_id"]) - 1)
            until = time.monotonic() + stay
            # It goes at a time of its own: else each would come again while a frame is on its way to the others.
            with suppress(websocket.WebSocketTimeoutException):
                while last < kept or time.monotonic() < until:
                    wire.settimeout(_SILENCE_SECONDS if last < kept else max(0.001, until - time.monotonic()))
                    frame = _frame(wire)
                    if frame["id"] is not None:
                        wrong += frame["id"] != last + 1
                        last = frame["id"]
                    else:  # what went while it was caught up is said to be gone
                        last = max(last, int(frame["data"].get("first_id", 0)) - 1)
            if last < kept:
                raise TrialFailed(f"it was told nothing more after event {last} of {kept}.")
        with self._lock:
            self.joined += 1
            self.replayed += kept - since
            self.wrong += wrong
        return last


def _frame(wire: websocket.WebSocket) -> dict[str, Any]:
    """The next one. Raises TrialFailed when there is none because the socket was closed."""
    opcode, data = wire.recv_data()
    if opcode != websocket.ABNF.OPCODE_TEXT:
        raise TrialFailed(f"it was closed: {data!r}")
    found: dict[str, Any] = orjson.loads(data)
    return found


def measure(sizes: Sizes) -> list[Section]:
    """With joiners and without, in turns: of a run that begins, and of one with as much as is kept."""
    allow_files(sizes.viewers)
    program = build.load_program(say)
    loads = [Load(sizes.viewers, _RATE, sizes.seconds, kept=kept) for kept in (0, _KEPT)]
    note = (
        f"{_RATE} frames/s, {_JOINERS} that come again after {_STAY_SECONDS} s on average, with the last id they "
        "have or from the beginning. Nothing was lost, doubled or out of order, at them or at those that stay."
    )
    rows = [_measured(load, sizes.rounds, program) for load in loads]
    return [Section("Joining while many watch", rows, _HEADINGS, [note])]


def _measured(load: Load, rounds: int, program: Path) -> Row:
    disturbed: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    total = Joiners("")
    for _ in range(rounds):
        with opened(SERVERS["ours"](say), load, program) as cast:
            joiners = Joiners(f"ws://127.0.0.1:{cast.stage.port}{cast.path}")
            with joiners.at_work():
                disturbed.append(cast.carry(load))
        total.joined += joiners.joined
        total.replayed += joiners.replayed
        total.wrong += joiners.wrong
        with opened(SERVERS["ours"](say), load, program) as cast:
            alone.append(cast.carry(load))
    if not total.joined:
        raise TrialFailed("Nobody joined late.")
    if total.wrong:
        raise TrialFailed(f"{total.wrong} events came to late joiners twice, too late or never.")
    return _row(load, total, disturbed, alone)


def _row(load: Load, joiners: Joiners, disturbed: list[dict[str, Any]], alone: list[dict[str, Any]]) -> Row:
    (p50, p99, cpu), (other_p50, other_p99, other_cpu) = (
        [median(report[name] for report in reports) for name in ("p50_ms", "p99_ms", "cpu")]
        for reports in (disturbed, alone)
    )
    return (
        f"`since=` while {load.sockets:,} watch, {load.kept:,} events before",
        f"{joiners.joined:,}",
        f"{joiners.replayed:,}",
        f"{p50:.1f} / {p99:.1f}",
        f"{other_p50:.1f} / {other_p99:.1f} without them",
        f"{ratio(p50, other_p50)} / {ratio(p99, other_p99)}",
        f"{cpu:.1f}",
        f"{other_cpu:.1f} without them",
        ratio(cpu, other_cpu),
    )
