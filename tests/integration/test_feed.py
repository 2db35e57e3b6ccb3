"""The feed and the lease: numbered, kept and published at once, by one supervisor at a time."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared import events, keys, times
from shared import feed as feed_module
from shared.errors import Fenced, RunNotFound, StateMoved
from shared.events import Event, LogLine
from shared.feed import Batch, Feed, Place, parse_message
from shared.lease import LEASE_SECONDS, Leases
from shared.redis_client import Client
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store

MakeRun = Callable[..., Run]
Eventually = Callable[..., Any]


@pytest.fixture
def run_id(store: Store, make_run: MakeRun) -> str:
    """A run that was submitted; its feed holds one event."""
    return store.submit(make_run(), "queue").run_id


@pytest.fixture
def fence(leases: Leases, run_id: str) -> int:
    """The fence of the run's first supervisor."""
    held = leases.acquire(run_id)
    assert held is not None
    return held.fence


def log(run_id: str, *lines: str) -> Event:
    made = [
        LogLine("2026-01-31T00:00:00Z", text, "pod", "nextflow", "stdout", number) for number, text in enumerate(lines)
    ]
    return events.log(run_id, made, times.now())


def messages(feed: Feed, run_id: str) -> list[str]:
    kept = [json.loads(frame) for _, frame in feed.read(run_id, 0, 100_000)]
    return [line["message"] for frame in kept if frame["type"] == "log" for line in frame["data"]["lines"]]


def test_one_supervisor_at_a_time(leases: Leases, run_id: str) -> None:
    """While one holds the lease nobody else gets it; each new holder has a higher fence and learns the status."""
    first = leases.acquire(run_id)
    assert first is not None
    assert first.status is RunStatus.STARTING
    assert leases.acquire(run_id) is None
    assert leases.held(run_id)
    leases.release(run_id, first.fence)
    assert not leases.held(run_id)
    second = leases.acquire(run_id)
    assert second is not None
    assert second.fence > first.fence


def test_of_many_at_once_one_gets_the_lease(leases: Leases, run_id: str) -> None:
    """Twenty who ask at one moment: one holds it."""
    gate, held = threading.Barrier(20), []

    def ask() -> None:
        gate.wait()
        held.append(leases.acquire(run_id))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([item for item in held if item]) == 1


def test_a_lease_that_ran_out_goes_to_another(leases: Leases, redis: Client, run_id: str, fence: int) -> None:
    """A dead supervisor's lease ends by itself; if it comes back, it is shut out from everything."""
    assert 0 < redis.pttl(keys.lease(run_id)) <= LEASE_SECONDS * 1000
    redis.pexpire(keys.lease(run_id), 0)
    second = leases.acquire(run_id)
    assert second is not None
    for call in (leases.renew, leases.release):
        with pytest.raises(Fenced):
            call(run_id, fence)
    assert leases.held(run_id)


def test_renewing_holds_on_and_tells_the_status(
    leases: Leases, store: Store, redis: Client, run_id: str, fence: int
) -> None:
    """A renewal lasts as long as a new lease, and is how a supervisor hears of a cancel."""
    redis.pexpire(keys.lease(run_id), 500)
    store.cancel(run_id)
    assert leases.renew(run_id, fence).status is RunStatus.CANCELLING
    assert redis.pttl(keys.lease(run_id)) > 5000


def test_there_is_no_lease_on_a_run_that_is_not_kept(leases: Leases) -> None:
    """Nothing is made for an id that nobody knows."""
    with pytest.raises(RunNotFound):
        leases.acquire("run-none")
    assert not leases.held("run-none")


def test_a_batch_is_kept_once_however_often_it_is_sent(feed: Feed, store: Store, run_id: str, fence: int) -> None:
    """After a lost answer the supervisor sends the same batch again, and nothing of it is kept twice."""
    batch = Batch(1, {"offset": 7}, [log(run_id, "a", "b")], [(1, {"task_id": 1})], {"percent": 5})
    for _ in range(3):
        feed.append(run_id, fence, batch)
    assert messages(feed, run_id) == ["a", "b"]
    assert store.tasks(run_id) == [{"task_id": 1}]
    assert store.get(run_id).progress == {"percent": 5}
    assert feed.place(run_id) == Place(1, {"offset": 7})


def test_a_batch_that_does_not_follow_is_refused(feed: Feed, run_id: str, fence: int) -> None:
    """When Redis has forgotten the batch before, or knows a later one, the supervisor is told and nothing is kept."""
    assert feed.place(run_id) == Place(0, {})
    with pytest.raises(StateMoved):
        feed.append(run_id, fence, Batch(2, {}, [log(run_id, "a")]))
    feed.append(run_id, fence, Batch(1, {}, [log(run_id, "b")]))
    feed.append(run_id, fence, Batch(2, {}, [log(run_id, "c")]))
    with pytest.raises(StateMoved):
        feed.append(run_id, fence, Batch(1, {}, [log(run_id, "d")]))
    assert messages(feed, run_id) == ["b", "c"]


def test_a_late_batch_of_an_earlier_try_is_not_taken_for_the_new_one(feed: Feed, run_id: str, fence: int) -> None:
    """A call that was given up may still arrive; what was read again meanwhile is more than it, and nothing is lost."""
    feed.append(run_id, fence, Batch(1, {"offset": 1}, [log(run_id, "a")]))
    feed.append(run_id, fence, Batch(2, {"offset": 2}, [log(run_id, "b")]))  # late: its sender has begun again after 1
    again = Batch(2, {"offset": 3}, [log(run_id, "b", "c")])
    with pytest.raises(StateMoved):
        feed.append(run_id, fence, again)
    assert feed.place(run_id) == Place(2, {"offset": 2})
    feed.append(run_id, fence, Batch(3, {"offset": 3}, [log(run_id, "c")]))
    assert messages(feed, run_id) == ["a", "b", "c"]


def test_an_old_supervisor_appends_nothing(feed: Feed, leases: Leases, run_id: str, fence: int) -> None:
    """With a fence that is not the newest, a batch is refused, whatever its number."""
    leases.release(run_id, fence)
    leases.acquire(run_id)
    for number in (1, 2):
        with pytest.raises(Fenced):
            feed.append(run_id, fence, Batch(number, {}, [log(run_id, "a")]))
    assert messages(feed, run_id) == []
    with pytest.raises(RunNotFound):
        feed.append("run-none", fence, Batch(1, {}))


def test_ids_have_no_holes_and_subscribers_see_what_is_kept(
    feed: Feed, store: Store, redis: Client, eventually: Eventually, run_id: str, fence: int
) -> None:
    """Supervisor and web write at once: ids grow by one, and the channel carries the same ids and frames as is kept."""
    heard: list[tuple[str, int, bytes]] = []
    with redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(keys.CHANNEL)
        channel.get_message(timeout=5)

        def supervise() -> None:
            for number in range(1, 101):
                feed.append(run_id, fence, Batch(number, {}, [log(run_id, f"{number}"), log(run_id, "žluť \n {}")]))

        thread = threading.Thread(target=supervise)
        thread.start()
        for number in range(50):
            store.move(
                run_id,
                lambda run, number=number: replace(run, message=str(number)),  # type: ignore[misc]
                tell=lambda run: [events.status(run, times.now())],
            )
        thread.join()

        def hear() -> bool:
            while message := channel.get_message(timeout=0):
                heard.append(parse_message(message["data"]))
            return len(heard) >= 250

        eventually(hear)
    kept = feed.read(run_id, 0, 1000)
    assert [number for number, _ in kept] == list(range(1, 252))
    assert [json.loads(frame)["id"] for _, frame in kept] == list(range(1, 252))
    assert heard == [(run_id, number, frame) for number, frame in kept[1:]]
    assert store.get(run_id).last_id == 251


def test_events_are_read_from_either_end(feed: Feed, run_id: str, fence: int) -> None:
    """After an id forwards, before an id backwards, as many as asked for."""
    feed.append(run_id, fence, Batch(1, {}, [log(run_id, str(number)) for number in range(9)]))
    assert (feed.first_id(run_id, 10), feed.last_id(run_id)) == (1, 10)
    assert [number for number, _ in feed.read(run_id, 3, 2)] == [4, 5]
    assert feed.read(run_id, 10) == []
    assert [number for number, _ in feed.read_back(run_id, None, 2)] == [10, 9]
    assert [number for number, _ in feed.read_back(run_id, 3)] == [2, 1]
    assert feed.first_id("run-none", 0) == 1
    [(_, newest)] = feed.read_back(run_id, most=1)
    assert feed.peek([(run_id, 10), (run_id, 11), ("run-none", 1)]) == [(10, newest), (10, None), (0, None)]
    assert feed.read_on(run_id, 10, 2) == (10, newest, [])
    [(_, third), *rest] = feed.read(run_id, 2, 3)
    assert feed.read_on(run_id, 3, 2) == (10, third, rest)
    assert feed.read_on(run_id, 0, 1) == (10, None, feed.read(run_id, 0, 1))
    assert feed.read_on(run_id, 11, 2) == (10, None, [])
    assert feed.read_on("run-none", 1, 2) == (0, None, [])


def test_lines_beyond_the_limit_are_dropped(redis: Client, settings: Settings, run_id: str, fence: int) -> None:
    """The newest lines are kept, the oldest go with their events, and the first id says what is left."""
    feed = Feed(redis, replace(settings, log_retention_lines=100))
    for number in range(1, 41):
        feed.append(run_id, fence, Batch(number, {}, [log(run_id, *(f"{number}.{line}" for line in range(10)))]))
    kept = messages(feed, run_id)
    assert 90 <= len(kept) <= 100
    assert kept[-1] == "40.9"
    last = feed.last_id(run_id)
    first = feed.first_id(run_id, last)
    assert (first, last) == (last - len(kept) // 10 + 1, 41)


def test_bytes_beyond_the_limit_are_dropped(redis: Client, settings: Settings, run_id: str, fence: int) -> None:
    """Few lines may be long: what is kept is bounded in bytes too."""
    feed = Feed(redis, replace(settings, log_retention_bytes=1_000_000))
    for number in range(1, 31):
        feed.append(run_id, fence, Batch(number, {}, [log(run_id, str(number) * 40_000)]))
    kept = feed.read(run_id, 0, 100)
    assert 800_000 < sum(len(frame) for _, frame in kept) <= 1_010_000
    assert kept[-1][0] == 31
    assert int(redis.hget(keys.run(run_id), "kept_bytes")) <= 1_000_000


def test_the_newest_event_always_stays(redis: Client, settings: Settings, run_id: str, fence: int) -> None:
    """An event larger than all that may be kept is kept until a newer one comes."""
    feed = Feed(redis, replace(settings, log_retention_bytes=1_000_000))
    feed.append(run_id, fence, Batch(1, {}, [log(run_id, "x" * 1_200_000)]))
    assert (feed.first_id(run_id, 2), feed.last_id(run_id)) == (2, 2)
    feed.append(run_id, fence, Batch(2, {}, [log(run_id, "small")]))
    assert (feed.first_id(run_id, 3), feed.last_id(run_id)) == (3, 3)


def test_many_events_in_one_batch_are_trimmed(redis: Client, settings: Settings, run_id: str, fence: int) -> None:
    """Batches far larger than the limit bring what is kept back under it."""
    feed = Feed(redis, replace(settings, log_retention_lines=50))
    for number in range(1, 4):
        feed.append(run_id, fence, Batch(number, {}, [log(run_id, str(line)) for line in range(400)]))
    assert len(feed.read(run_id, 0, 5000)) <= 50
    assert feed.last_id(run_id) == 1201


def test_tasks_are_bounded(feed: Feed, store: Store, monkeypatch: pytest.MonkeyPatch, run_id: str, fence: int) -> None:
    """Of very many tasks the newest are kept."""
    monkeypatch.setattr(feed_module, "TASKS_KEPT", 10)
    for number in range(1, 31):
        feed.append(run_id, fence, Batch(number, {}, tasks=[(number, {"task_id": number})]))
    assert [task["task_id"] for task in store.tasks(run_id)] == list(range(21, 31))


def test_the_order_of_tasks_is_that_of_their_index(feed: Feed, store: Store, run_id: str, fence: int) -> None:
    """A task that changes keeps its place."""
    feed.append(run_id, fence, Batch(1, {}, tasks=[(n, {"task_id": n, "status": "SUBMITTED"}) for n in (1, 2, 10)]))
    feed.append(run_id, fence, Batch(2, {}, tasks=[(2, {"task_id": 2, "status": "COMPLETED"})]))
    assert [(task["task_id"], task["status"][0]) for task in store.tasks(run_id)] == [(1, "S"), (2, "C"), (10, "S")]


def test_the_lease_of_a_process_that_ended_counts_no_more(
    leases: Leases, redis: Client, run_id: str, fence: int
) -> None:
    """One that lives, or that cannot be seen from here, keeps its lease; one that was killed has lost it at once."""
    holder = redis.get(keys.lease(run_id))
    assert leases.held(run_id)
    elsewhere = b"another-boot/" + holder.split(b"/", 1)[1]
    redis.set(keys.lease(run_id), elsewhere)
    assert leases.held(run_id)
    child = subprocess.Popen(["sleep", "60"])
    mine = f"{os.getpid()}-".encode()
    began = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    of_child = holder.partition(mine)[0] + f"{child.pid}-{began}".encode()
    redis.set(keys.lease(run_id), of_child)
    assert leases.held(run_id)
    child.kill()
    child.wait()
    assert not leases.held(run_id)
    following = leases.acquire(run_id)
    assert following is not None
    assert following.fence == fence + 1


def test_a_pid_that_was_given_again_is_another_process(leases: Leases, redis: Client, run_id: str, fence: int) -> None:
    """A process is told by its start too."""
    assert fence
    redis.set(keys.lease(run_id), redis.get(keys.lease(run_id)) + b"0")
    assert not leases.held(run_id)
