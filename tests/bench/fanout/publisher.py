"""The publisher, a process of its own: stamped log events at a steady rate, to the service's feed or to a channel."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from ends import finish

from shared import events, times
from shared.events import Event, LogLine
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import connect
from shared.runs import Run, RunStatus, job_name, new_run_id, new_session_id
from shared.settings import load
from shared.store import Store

CHANNEL = "frames"
LINES = 5
"""Lines of an event: so many make a frame of about 1.2 KB."""

_RENEW_SECONDS = 2.5
_STREAM = "/api/v1/pipeline/stream"
# The first of all tells that it starts.
_FIRST_OF_A_RUN = 2
_TEXT = "[a1/b2c3d4] Submitted process > ALIGN (sample_17)"


class Sender(Protocol):
    """Where events go. `path` is the socket that has them, `first` the number of the first one."""

    path: str
    first: int
    run_id: str

    def begin(self) -> None:
        """Called once before the first event."""

    def send(self, number: int, event: Event) -> None:
        """Publish an event under that number."""


class ToFeed:
    """As a worker does: a run, a lease, and one batch after another, each showing the fence.

    So many events are `kept` before the first that is asked for. Its sockets name the run, unless they `follow`.
    """

    def __init__(self, redis_url: str, kept: int, *, follow: bool = False) -> None:
        settings = load({"REDIS_URL": redis_url})
        redis = connect(redis_url)
        self._store, self._feed, self._leases = Store(redis, settings), Feed(redis, settings), Leases(redis)
        self._submit()
        self.path = _STREAM if follow else f"{_STREAM}?run_id={self.run_id}"
        self._take_lease()
        for number in range(self.first, self.first + kept):
            self.send(number, log_event(self.run_id, number))
        self._leases.release(self.run_id, self._fence)
        self.first += kept

    def _submit(self) -> None:
        """A run takes the slot, which must be free."""
        now = times.now()
        run = Run(run_id=new_run_id(now), pipeline="fan-out", session_id=new_session_id(), queued_at=now)
        self._store.submit(run, "reject")
        self.run_id, self._batches = run.run_id, 0
        self.first = self._feed.last_id(run.run_id) + 1

    def begin(self) -> None:
        """Take the lease."""
        self._take_lease()

    def _take_lease(self) -> None:
        held = self._leases.acquire(self.run_id)
        assert held is not None, "nobody else knows of the run"
        self._fence = held.fence
        self._renewed_at = time.monotonic()

    def send(self, number: int, event: Event) -> None:
        """Append a batch of one event."""
        place = {"cluster": {"offset": number, "container": "nextflow"}, "scribe": {"memory": {"line": number}}}
        self._batches += 1
        self._feed.append(self.run_id, self._fence, Batch(self._batches, place, [event]))
        if time.monotonic() - self._renewed_at > _RENEW_SECONDS:
            self._leases.renew(self.run_id, self._fence)
            self._renewed_at = time.monotonic()


class ToNextRun(ToFeed):
    """The same, of a run that begins when the first event is asked for; its sockets follow it from the run before."""

    def __init__(self, redis_url: str, kept: int) -> None:
        super().__init__(redis_url, kept, follow=True)
        self.first = _FIRST_OF_A_RUN

    def begin(self) -> None:
        """The run before ends, and this one takes the slot."""
        finish(self._store, self.run_id, RunStatus.SUCCEEDED)
        self._submit()
        assert self.first == _FIRST_OF_A_RUN
        self._take_lease()


class ToChannel:
    """The same frames to a plain channel of Redis."""

    path = "/socket"
    first = 1

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)
        self.run_id = new_run_id(times.now())

    def begin(self) -> None:
        """There is nothing to do."""

    def send(self, number: int, event: Event) -> None:
        """Publish the whole frame."""
        self._redis.publish(CHANNEL, events.with_id(event.body(), number))


def main(arguments: Sequence[str]) -> None:
    """Say where the events will be, wait for a line, publish, and say what was published."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", choices=("feed", "followed", "next-run", "channel"), required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--kept", type=int, default=0, help="events that are there before, in a feed")
    asked = parser.parse_args(arguments)
    sender = _sender(asked.to, asked.redis, asked.kept)
    _say({"path": sender.path, "first": sender.first})
    if not sys.stdin.readline():
        return
    sender.begin()
    count = asked.rate * asked.seconds
    seconds = _publish(sender, count, 1 / asked.rate)
    last = sender.first + count - 1
    size = len(events.with_id(log_event(sender.run_id, last).body(), last))
    _say({"last": last, "seconds": seconds, "frame_bytes": size})
    sys.stdin.readline()


def _sender(to: str, redis_url: str, kept: int) -> Sender:
    if to == "channel":
        return ToChannel(redis_url)
    return ToNextRun(redis_url, kept) if to == "next-run" else ToFeed(redis_url, kept, follow=to == "followed")


def _publish(sender: Sender, count: int, gap: float) -> float:
    """The seconds from the first event to when the one after the last would be due."""
    began = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, began + index * gap - time.monotonic()))
        number = sender.first + index
        sender.send(number, log_event(sender.run_id, number))
    time.sleep(max(0.0, began + count * gap - time.monotonic()))
    return time.monotonic() - began


def log_event(run_id: str, number: int) -> Event:
    """The event of that number, stamped with the present."""
    now = times.now()
    stamp = f"stamp {time.time_ns() // 1000} {_TEXT}"
    at = times.to_text(now)
    lines = [
        LogLine(at, stamp if index == 0 else _TEXT, job_name(run_id), "nextflow", "stdout", LINES * number + index)
        for index in range(LINES)
    ]
    return events.log(run_id, lines, now)


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
