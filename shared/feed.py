"""The feed of a run: events are numbered, kept and published in one step, and read back by number."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared import keys
from shared.errors import Fenced, RunNotFound, StateMoved
from shared.events import Event, with_id
from shared.redis_client import Client, script, store_errors
from shared.settings import Settings

TASKS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What a supervisor has to say at once. `number` grows by one a batch; `place` is where it goes on from.

    `nonce` tells it from any other of the same number.
    """

    number: int
    place: Mapping[str, Any]
    events: Sequence[Event] = ()
    tasks: Sequence[tuple[int, Mapping[str, Any]]] = ()
    progress: Mapping[str, Any] | None = None
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(8))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the supervisor of a run left off: the number of its last batch and what it wrote with it."""

    batch: int
    place: Mapping[str, Any]


class Feed:
    """Appends to and reads from feeds. Every method raises StoreAway when Redis does not answer."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._append = script(redis, "append")

    def append(self, run_id: str, fence: int, batch: Batch) -> None:
        """Keep and publish a batch exactly once, however often the call is repeated.

        Raises Fenced when another supervisor took over, StateMoved when Redis does not hold the batch
        before this one, and RunNotFound.
        """
        arguments: list[Any] = [
            run_id,
            fence,
            batch.number,
            orjson.dumps(batch.place),
            b"" if batch.progress is None else orjson.dumps(batch.progress),
            self._settings.log_retention_lines,
            self._settings.log_retention_bytes,
            TASKS_KEPT,
            batch.nonce,
            len(batch.events),
        ]
        for event in batch.events:
            arguments += (max(event.lines, 1), event.body())
        for index, task in batch.tasks:
            arguments += (index, orjson.dumps(task))
        with store_errors():
            outcome = self._append(keys=[keys.run(run_id), keys.events(run_id), keys.tasks(run_id)], args=arguments)
        match outcome:
            case b"fenced":
                raise Fenced(run_id)
            case b"moved":
                raise StateMoved(run_id)
            case b"missing":
                raise RunNotFound(run_id)

    def place(self, run_id: str) -> Place:
        """Where the last supervisor left off; batch 0 and nothing when there was none."""
        with store_errors():
            batch, place = self._redis.hmget(keys.run(run_id), "batch", "place")
        return Place(int(batch or 0), orjson.loads(place) if place else {})

    def last_id(self, run_id: str) -> int:
        """The id of the last event, 0 when there is none."""
        with store_errors():
            return int(self._redis.hget(keys.run(run_id), "seq") or 0)

    def peek(self, places: Sequence[tuple[str, int]]) -> list[tuple[int, bytes | None]]:
        """For each of these runs and ids: the id of its last event, and the whole frame of that one, if it is kept.

        All are asked for at once.
        """
        with store_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for run_id, number in places:
                pipeline.hget(keys.run(run_id), "seq")
                pipeline.xrange(keys.events(run_id), number, number)
            answers = iter(pipeline.execute())
        pairs = zip(answers, answers, strict=True)
        return [(int(last_id or 0), _numbered(found[0])[1] if found else None) for last_id, found in pairs]

    def read_on(self, run_id: str, after: int, most: int) -> tuple[int, bytes | None, list[tuple[int, bytes]]]:
        """What `peek` tells of a run and an id, and the kept events later than that; all asked for at once.

        These may go beyond the last event of which it tells: more may come while Redis is asked.
        """
        with store_errors():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hget(keys.run(run_id), "seq")
            pipeline.xrange(keys.events(run_id), after, "+", count=most + 1)
            last_id, entries = pipeline.execute()
        page = [_numbered(entry) for entry in entries]
        found = page.pop(0)[1] if page and page[0][0] == after else None
        return max(int(last_id or 0), after if found else 0), found, page[:most]

    def read(self, run_id: str, after: int, most: int = 100) -> list[tuple[int, bytes]]:
        """Kept events later than `after`, in order: their ids and whole frames."""
        with store_errors():
            entries = self._redis.xrange(keys.events(run_id), f"({after}-0", "+", count=most)
        return [_numbered(entry) for entry in entries]

    def read_back(self, run_id: str, before: int | None = None, most: int = 100) -> list[tuple[int, bytes]]:
        """Kept events earlier than `before`, the newest first: their ids and whole frames."""
        last = "+" if before is None else f"({before}-0"
        with store_errors():
            entries = self._redis.xrevrange(keys.events(run_id), last, "-", count=most)
        return [_numbered(entry) for entry in entries]

    def first_id(self, run_id: str, last_id: int) -> int:
        """The id of the first kept event; when none is kept, the one after `last_id`, which was the last just now."""
        first = self.read(run_id, 0, 1)
        return first[0][0] if first else last_id + 1


def parse_message(message: bytes) -> tuple[str, int, bytes]:
    """What the channel carries: the run's id, the event's id and its whole frame."""
    run_id, number, body = message.split(b" ", 2)
    return run_id.decode(), int(number), with_id(body, int(number))


def _numbered(entry: tuple[bytes, Mapping[bytes, bytes]]) -> tuple[int, bytes]:
    stream_id, fields = entry
    number = int(stream_id.partition(b"-")[0])
    return number, with_id(fields[b"body"], number)
