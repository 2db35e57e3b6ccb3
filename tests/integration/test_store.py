"""The store: whoever races, each run is taken in once, moves legally, ends once and is dropped in time."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
import pytest
from ends import finish, queued

from shared import events, keys, times
from shared.errors import Busy, Fenced, IllegalMove, KeyReused, QueueFull, RunNotFound, StoreAway
from shared.events import LogLine
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import Client, connect
from shared.runs import Run, RunStatus
from shared.settings import Settings, load
from shared.store import Kept, Store, Submission, WhenBusy, Which

MakeRun = Callable[..., Run]
Ended = Callable[..., Run]


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that are made by as many threads at one moment; an error is its own result."""
    gate, results = threading.Barrier(len(calls)), [None] * len(calls)

    def make(number: int) -> None:
        gate.wait()
        try:
            results[number] = calls[number]()
        except Exception as error:  # whatever it is, the test that asked wants to see it
            results[number] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=make, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def frames(feed: Feed, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(frame) for _, frame in feed.read(run_id, 0, 1000)]


def types(feed: Feed, run_id: str) -> list[str]:
    return [frame["type"] for frame in frames(feed, run_id)]


def race(store: Store, runs: list[Run], when_busy: WhenBusy) -> list[Any]:
    return at_once([lambda run=run: store.submit(run, when_busy) for run in runs])  # type: ignore[misc]


def test_of_fifty_one_starts_and_the_rest_queue(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """Fifty submissions at once: exactly one starts, and the others stand in the queue at the places they were told."""
    runs = [make_run() for _ in range(50)]
    taken = race(store, runs, "queue")
    assert Counter(item.outcome for item in taken) == {"started": 1, "queued": 49}
    places = {item.position: item.run_id for item in taken if item.outcome == "queued"}
    assert queued(store) == [places[number] for number in range(1, 50)]
    (started,) = [item for item in taken if item.outcome == "started"]
    assert store.active_id() == started.run_id
    assert Counter(store.get(run.run_id).run.status for run in runs) == {"starting": 1, "queued": 49}
    assert all(types(feed, run.run_id) == ["status"] for run in runs)


def test_of_fifty_one_starts_and_the_rest_attach(store: Store, make_run: MakeRun) -> None:
    """Fifty submissions at once that would attach all get the one run, and nothing is kept of the others."""
    runs = [make_run() for _ in range(50)]
    taken = race(store, runs, "attach")
    assert Counter(item.outcome for item in taken) == {"started": 1, "attached": 49}
    assert {item.run_id for item in taken} == {store.active_id()}
    assert len(store.history(100)) == 1


def test_of_fifty_one_starts_and_the_rest_are_refused(store: Store, make_run: MakeRun) -> None:
    """Fifty submissions at once that would be refused: each refusal names the active run."""
    taken = race(store, [make_run() for _ in range(50)], "reject")
    (started,) = [item for item in taken if isinstance(item, Submission)]
    refused = [item for item in taken if isinstance(item, Busy)]
    assert len(refused) == 49
    assert {item.active for item in refused} == {started.run_id}


def test_the_queue_is_first_come_first_served(store: Store, make_run: MakeRun) -> None:
    """Runs begin in the order in which they were submitted, and a newcomer does not overtake those who wait."""
    runs = [make_run() for _ in range(4)]
    for run in runs:
        store.submit(run, "queue")
    for now, following in pairwise(runs):
        finish(store, now.run_id, RunStatus.SUCCEEDED)
        assert store.submit(make_run(), "attach").run_id == following.run_id
        begun = store.begin_next()
        assert begun is not None
        assert (begun.run_id, begun.status) == (following.run_id, RunStatus.STARTING)
        assert begun.started_at is not None
    assert queued(store) == []


def test_the_same_key_gives_the_same_answer(store: Store, make_run: MakeRun) -> None:
    """A request that is sent again with its key, also many times at once, makes one run and hears of that one."""
    first = store.submit(make_run(), "queue", "key-1", b"body")
    queued = at_once([lambda: store.submit(make_run(), "queue", "key-2", b"body")] * 20)
    assert len({item.run_id for item in queued}) == 1
    assert {(item.outcome, item.position) for item in queued} == {("queued", 1)}
    assert store.submit(make_run(), "queue", "key-1", b"body") == first
    assert len(store.history(100)) == 2


def test_a_key_stands_for_one_request(store: Store, make_run: MakeRun) -> None:
    """The same key with another request is refused, and names the run it stands for."""
    first = store.submit(make_run(), "queue", "key", b"body")
    with pytest.raises(KeyReused, match=first.run_id):
        store.submit(make_run(), "queue", "key", b"another body")
    assert len(store.history(100)) == 1


def test_a_refusal_does_not_use_up_its_key(store: Store, make_run: MakeRun) -> None:
    """Who was refused may try again with the same key."""
    active = store.submit(make_run(), "queue").run_id
    with pytest.raises(Busy):
        store.submit(make_run(), "reject", "key", b"body")
    finish(store, active, RunStatus.SUCCEEDED)
    assert store.submit(make_run(), "reject", "key", b"body").outcome == "started"


def test_the_queue_is_bounded(redis: Client, settings: Settings, make_run: MakeRun) -> None:
    """Where QUEUE_LIMIT runs wait, one more is refused and leaves nothing behind."""
    store = Store(redis, replace(settings, queue_limit=2))
    for _ in range(3):
        store.submit(make_run(), "queue")
    with pytest.raises(QueueFull, match="2 runs"):
        store.submit(late := make_run(), "queue")
    with pytest.raises(RunNotFound):
        store.get(late.run_id)
    assert store.queue_length() == 2


def test_a_submission_whose_answer_was_lost_is_answered_again(store: Store, make_run: MakeRun) -> None:
    """The same call that comes twice takes the run in once, and is told the same; nothing is written over."""
    started, waiting, later = make_run(), make_run(), make_run()
    first = [store.submit(run, "queue") for run in (started, waiting, later)]
    again = [store.submit(replace(run, pipeline="another"), "queue") for run in (started, waiting, later)]
    assert again == first
    assert [item.outcome for item in again] == ["started", "queued", "queued"]
    assert queued(store) == [waiting.run_id, later.run_id]
    assert store.get(started.run_id).run.pipeline == "hello"


def test_a_queued_run_is_cancelled_at_once(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """A run that waits ends with one `complete`, and those behind it move up."""
    runs = [make_run() for _ in range(4)]
    for run in runs:
        store.submit(run, "queue")
    assert queued(store).index(runs[3].run_id) == 2
    assert store.cancel(runs[2].run_id)[1]
    ended, again = store.cancel(runs[2].run_id)
    assert (ended.status, again) == (RunStatus.CANCELLED, False)
    assert types(feed, runs[2].run_id) == ["status", "status", "complete"]
    assert queued(store) == [runs[1].run_id, runs[3].run_id]
    assert store.active_id() == runs[0].run_id


def test_an_active_run_is_asked_to_end(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """A run at work becomes `cancelling` and keeps the slot; asked again, nothing more happens."""
    store.submit(run := make_run(), "queue")
    for _ in range(3):
        after, cancelled = store.cancel(run.run_id)
        assert (after.status, cancelled) == (RunStatus.CANCELLING, True)
    assert store.active_id() == run.run_id
    assert [frame["data"]["status"] for frame in frames(feed, run.run_id)] == ["starting", "cancelling"]


def test_a_run_that_has_ended_is_not_cancelled(store: Store, ended: Ended) -> None:
    """A final status never changes."""
    run = ended(RunStatus.FAILED)
    assert store.cancel(run.run_id) == (store.get(run.run_id).run, False)


def test_cancel_and_turn_may_race(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """When a run is cancelled just as its turn comes, either it never starts or it is told to stop."""
    for _ in range(20):
        store.submit(first := make_run(), "queue")
        store.submit(second := make_run(), "queue")
        finish(store, first.run_id, RunStatus.SUCCEEDED)
        begun, (run, cancelled) = at_once([store.begin_next, lambda: store.cancel(second.run_id)])
        assert cancelled
        assert (run.status is RunStatus.CANCELLING) == (begun is not None)
        assert run.status in (RunStatus.CANCELLED, RunStatus.CANCELLING)
        assert store.get(second.run_id).run.status is run.status
        assert store.active_id() == (second.run_id if run.status is RunStatus.CANCELLING else None)
        if not run.status.final:
            finish(store, second.run_id, RunStatus.CANCELLED)
        assert types(feed, second.run_id).count("complete") == 1


def test_a_cancel_that_comes_late_ends_nothing_by_itself(
    redis: Client, settings: Settings, store: Store, make_run: MakeRun
) -> None:
    """Whoever cancels a waiting run may be slow: if its turn came meanwhile, its supervisor must end it first."""
    store.submit(first := make_run(), "queue")
    store.submit(second := make_run(), "queue")

    class Slow(Store):
        def get(self, run_id: str) -> Kept:
            found = super().get(run_id)
            if found.run.status is RunStatus.QUEUED:
                finish(store, first.run_id, RunStatus.SUCCEEDED)
                store.begin_next()
            return found

    run, cancelled = Slow(redis, settings).cancel(second.run_id)
    assert (run.status, cancelled) == (RunStatus.CANCELLING, True)
    assert store.active_id() == second.run_id


def test_eight_workers_begin_one_run(store: Store, make_run: MakeRun) -> None:
    """However many ask for the next run, the free slot is given once."""
    for _ in range(5):
        store.submit(make_run(), "queue")
    for _ in range(4):
        finish(store, store.active_id() or "", RunStatus.SUCCEEDED)
        head = queued(store)[0]
        begun = [run for run in at_once([store.begin_next] * 8) if run is not None]
        assert [run.run_id for run in begun] == [head]
        assert store.active_id() == head


def test_a_queue_entry_without_a_record_is_passed_over(store: Store, redis: Client, make_run: MakeRun) -> None:
    """A run whose record is gone does not hold up those who wait behind it."""
    store.submit(first := make_run(), "queue")
    redis.rpush(keys.QUEUE, "run-gone")
    store.submit(second := make_run(), "queue")
    finish(store, first.run_id, RunStatus.SUCCEEDED)
    begun = store.begin_next()
    assert begun is not None
    assert begun.run_id == second.run_id


def test_a_run_ends_once(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """Ended many times at once and in different ways, a run has one `complete`, one status and one count."""
    store.submit(run := make_run(), "queue")
    verdicts = [RunStatus.SUCCEEDED, RunStatus.FAILED] * 5
    progress = {"percent": 100, "completed": 1, "total": 1, "processes": [], "executor": None}
    results = at_once(
        [lambda v=v: store.end(run.run_id, lambda _, v=v: (v, v), exit_code=0, progress=progress) for v in verdicts]  # type: ignore[misc]
    )
    kept = store.get(run.run_id)
    assert {result.status for result in results} == {kept.run.status}
    assert types(feed, run.run_id) == ["status", "progress", "status", "complete"]
    assert frames(feed, run.run_id)[-1]["data"]["run"] == kept.run.info()
    assert store.totals() == {kept.run.status.value: 1}
    assert store.active_id() is None
    assert kept.progress == progress


def test_a_stale_move_is_made_again_on_the_newer_record(store: Store, make_run: MakeRun) -> None:
    """A change that another overtook is asked for again with the record as it is now."""
    store.submit(run := make_run(), "queue")
    seen = []

    def change(now: Run) -> Run:
        seen.append(now.status)
        if len(seen) == 1:
            store.cancel(run.run_id)
        return replace(now, message="moved")

    store.move(run.run_id, change, tell=lambda _: [])
    assert seen == [RunStatus.STARTING, RunStatus.CANCELLING]
    assert store.get(run.run_id).run.status is RunStatus.CANCELLING
    assert store.get(run.run_id).run.message == "moved"


def test_moves_at_once_lose_none(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """Each of several moves at once is made on top of the others."""
    store.submit(run := make_run(parameters={"n": 0}), "queue")

    def add() -> None:
        store.move(
            run.run_id,
            lambda now: replace(now, parameters={"n": now.parameters["n"] + 1}),
            tell=lambda now: [events.status(now, times.now())],
        )

    errors = [result for result in at_once([add] * 6) if result is not None]
    assert errors == []
    assert store.get(run.run_id).run.parameters == {"n": 6}
    assert [frame["data"]["parameters"]["n"] for frame in frames(feed, run.run_id)] == list(range(7))


def test_an_old_supervisor_moves_nothing(store: Store, leases: Leases, make_run: MakeRun) -> None:
    """A move with a fence that is no longer the newest is refused and changes nothing."""
    store.submit(run := make_run(), "queue")
    old = leases.acquire(run.run_id)
    assert old is not None
    leases.release(run.run_id, old.fence)
    new = leases.acquire(run.run_id)
    assert new is not None
    with pytest.raises(Fenced):
        finish(store, run.run_id, RunStatus.FAILED, fence=old.fence)
    assert store.get(run.run_id).run.status is RunStatus.STARTING
    assert finish(store, run.run_id, RunStatus.FAILED, fence=new.fence).status is RunStatus.FAILED


def test_illegal_moves_change_nothing(store: Store, feed: Feed, make_run: MakeRun) -> None:
    """A queued run cannot succeed."""
    store.submit(make_run(), "queue")
    store.submit(run := make_run(), "queue")
    with pytest.raises(IllegalMove):
        finish(store, run.run_id, RunStatus.SUCCEEDED)
    assert types(feed, run.run_id) == ["status"]


def test_unknown_runs_are_not_found(store: Store) -> None:
    """Every call that names a run says so when there is none."""
    for call in (store.get, store.cancel, store.tasks):
        with pytest.raises(RunNotFound, match="run-none"):
            call("run-none")


def test_a_name_of_another_key_is_no_run(store: Store, make_run: MakeRun) -> None:
    """An id made up to meet another key of Redis finds no run."""
    store.submit(run := make_run(), "queue")
    for suffix in ("events", "tasks", "lease"):
        with pytest.raises(RunNotFound):
            store.get(f"{run.run_id}:{suffix}")


@pytest.fixture
def dated(store: Store, ended: Ended) -> list[Run]:
    """Runs of five days, the newest first; the one of the third day failed."""
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)
    made = [
        ended(
            RunStatus.FAILED if day == 2 else RunStatus.SUCCEEDED,
            run_id=f"run-2026010{day + 1}-120000-00000000",
            queued_at=first + timedelta(days=day),
        )
        for day in range(5)
    ]
    return made[::-1]


def test_the_history_is_newest_first(store: Store, dated: list[Run]) -> None:
    """As many as asked for, the newest first."""
    assert store.history(10) == dated
    assert store.history(2) == dated[:2]


def test_the_history_goes_on_before_a_run_or_a_time(store: Store, dated: list[Run]) -> None:
    """The next page is asked for by the last run seen, or by a time; both leave out the run they name."""
    assert store.history(2, before=dated[1].run_id) == dated[2:4]
    assert store.history(10, before=dated[1].queued_at) == dated[2:]
    assert store.history(10, before=dated[1].queued_at + timedelta(milliseconds=1)) == dated[1:]
    assert store.history(10, before=dated[-1].run_id) == []
    with pytest.raises(RunNotFound):
        store.history(10, before="run-none")


def test_the_history_of_one_status(store: Store, dated: list[Run]) -> None:
    """Only runs of that status count towards the number asked for, and pages go on behind them."""
    good = [run for run in dated if run.status is RunStatus.SUCCEEDED]
    assert store.history(10, status=RunStatus.FAILED) == [dated[2]]
    assert store.history(3, status=RunStatus.SUCCEEDED) == good[:3]
    assert store.history(10, before=good[2].run_id, status=RunStatus.SUCCEEDED) == good[3:]


def test_the_history_is_paged_through_more_runs_than_one_look_reads(store: Store, ended: Ended) -> None:
    """A rare status is found behind many others."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    rare = ended(RunStatus.FAILED, queued_at=first)
    for number in range(60):
        ended(queued_at=first + timedelta(seconds=number + 1))
    assert store.history(1, status=RunStatus.FAILED) == [rare]


def test_ended_runs_beyond_the_limit_are_dropped(
    redis: Client, settings: Settings, store: Store, dated: list[Run]
) -> None:
    """The oldest go, with all that is kept of them."""
    redis.hset(keys.tasks(dated[-1].run_id), 1, b"{}")
    assert Store(redis, replace(settings, run_history_limit=3)).trim_history() == 2
    assert store.history(10) == dated[:3]
    for run in dated[3:]:
        assert [key for key in redis.keys("*") if run.run_id.encode() in key] == []


def test_runs_that_live_are_never_dropped(redis: Client, settings: Settings, make_run: MakeRun, ended: Ended) -> None:
    """Active and waiting runs stay whatever the limit is, also when they are the oldest."""
    old = datetime(2020, 1, 1, tzinfo=UTC)
    store = Store(redis, replace(settings, run_history_limit=1))
    gone = ended()
    live = [make_run(queued_at=old + timedelta(seconds=number)) for number in range(5)]
    for run in live:
        store.submit(run, "queue")
    store.trim_history()
    assert {run.run_id for run in store.history(10)} >= {run.run_id for run in live}
    assert queued(store) == [run.run_id for run in live[1:]]
    assert gone.status.final


def test_the_limit_counts_ended_runs_alone(redis: Client, settings: Settings, make_run: MakeRun, ended: Ended) -> None:
    """A long queue does not drive ended runs out of the history."""
    store = Store(redis, replace(settings, run_history_limit=2))
    kept = [ended(), ended()]
    for _ in range(4):
        store.submit(make_run(), "queue")
    assert store.trim_history() == 0
    assert [run for run in store.history(10) if run.status.final] == kept[::-1]


def test_what_is_kept_of_an_ended_run_expires(
    redis: Client, settings: Settings, leases: Leases, feed: Feed, make_run: MakeRun
) -> None:
    """All keys of a run get a time to live when it ends, and none before; then its entry goes too."""
    store = Store(redis, replace(settings, run_ttl_minutes=2))
    store.submit(run := make_run(), "queue")
    held = leases.acquire(run.run_id)
    assert held is not None
    feed.append(run.run_id, held.fence, Batch(1, {}, tasks=[(1, {"task_id": 1})]))
    own = [keys.run(run.run_id), keys.events(run.run_id), keys.tasks(run.run_id)]
    assert [redis.ttl(key) for key in own] == [-1, -1, -1]
    finish(store, run.run_id, RunStatus.SUCCEEDED)
    assert all(100 < redis.ttl(key) <= 120 for key in own)
    assert redis.ttl(keys.lease(run.run_id)) <= 10
    assert store.trim_history() == 0
    redis.delete(*own)
    assert store.history(10) == []
    redis.zincrby(keys.ENDED, -120_000, run.run_id)
    assert store.trim_history() == 1
    assert redis.zcard(keys.HISTORY) == redis.zcard(keys.ENDED) == 0


def test_a_long_run_is_kept_when_it_ends(redis: Client, settings: Settings, make_run: MakeRun, ended: Ended) -> None:
    """However many came and went while it worked: it is the newest of those that have ended."""
    store = Store(redis, replace(settings, run_history_limit=3))
    store.submit(long := make_run(), "queue")
    for _ in range(5):
        store.submit(run := make_run(), "queue")
        store.cancel(run.run_id)
    assert store.trim_history() == 2
    time.sleep(0.002)  # times are kept in milliseconds
    finish(store, long.run_id, RunStatus.SUCCEEDED)
    assert store.trim_history() == 1
    assert long.run_id in [run.run_id for run in store.history(10)]


def test_a_run_is_kept_from_when_its_end_is_known(store: Store, make_run: MakeRun) -> None:
    """No worker looked for longer than ended runs are kept: the end that is told at last can be read all the same."""
    store.submit(run := make_run(queued_at=times.now() - timedelta(days=30)), "queue")
    store.end(run.run_id, lambda _: (RunStatus.FAILED, None), at=times.now() - timedelta(days=20))
    assert store.trim_history() == 0
    [kept] = store.history(10)
    assert (kept.status, kept.finished_at) == (RunStatus.FAILED, store.get(run.run_id).run.finished_at)


def test_a_record_of_a_newer_service_can_be_read(store: Store, redis: Client, make_run: MakeRun) -> None:
    """Web may be replaced before the worker: what is unknown is left out."""
    store.submit(run := make_run(), "queue")
    record = orjson.loads(redis.hget(keys.run(run.run_id), "record"))
    redis.hset(keys.run(run.run_id), "record", orjson.dumps(record | {"something": 1}))
    assert store.get(run.run_id).run.run_id == run.run_id


def test_the_run_to_show_is_the_active_one_else_the_last_to_begin(
    store: Store, redis: Client, make_run: MakeRun
) -> None:
    """What a viewer sees without asking for a run: what works now, else what did last."""
    assert store.latest_id() is None
    first, called_off, second = make_run(), make_run(), make_run()
    for run in (first, called_off, second):
        store.submit(run, "queue")
    assert store.latest_id() == first.run_id
    finish(store, first.run_id, RunStatus.SUCCEEDED)
    assert store.latest_id() == first.run_id
    store.cancel(called_off.run_id)
    assert store.latest_id() == first.run_id
    store.begin_next()
    assert store.latest_id() == second.run_id
    finish(store, second.run_id, RunStatus.SUCCEEDED)
    assert store.latest_id() == second.run_id
    redis.delete(keys.run(second.run_id))  # its time is over
    assert store.latest_id() is None


def test_how_things_stand_is_told_of_runs_that_are_there(store: Store, redis: Client, make_run: MakeRun) -> None:
    """Not of one without a name, and not of one whose record is gone while it has the slot."""
    store.submit(run := make_run(), "queue")
    store.submit(waits := make_run(triggered_by="you"), "queue")
    for none in ("", "run-none", f"{run.run_id}:events"):
        with pytest.raises(RunNotFound):
            store.standing(none)
    told = store.standing(Which.ACTIVE)
    assert told.kept == store.get(run.run_id)
    assert told == store.standing(run.run_id) == store.standing(Which.LATEST)
    entry = {"run_id": waits.run_id, "pipeline": "hello", "queued_at": times.to_text(waits.queued_at)}
    assert list(told.waiting) == [entry | {"triggered_by": "you"}]
    redis.delete(keys.run(run.run_id))
    for which in Which:
        assert store.standing(which).kept is None


def test_a_preview_has_the_newest_lines_and_nothing_else(
    store: Store, feed: Feed, leases: Leases, make_run: MakeRun
) -> None:
    """As many log events as have so many lines, among the last forty of all kinds."""
    run_id = store.submit(make_run(), "queue").run_id
    held = leases.acquire(run_id)
    assert held is not None
    line = LogLine("2026-01-31T00:00:00Z", "said", "p", "nextflow", "stdout", 1)
    wrong = events.error(run_id, times.now(), level="error", message="no", source="nextflow")
    said = [events.log(run_id, [line] * 3, times.now()), wrong, events.log(run_id, [line] * 2, times.now()), wrong]
    feed.append(run_id, held.fence, Batch(1, {}, said))

    def lines(most: int) -> list[int]:
        return [orjson.loads(body)["data"]["count"] for body in store.standing(run_id, most).preview]

    assert (lines(0), lines(1), lines(2), lines(3), lines(100)) == ([], [2], [2], [2, 3], [2, 3])
    feed.append(run_id, held.fence, Batch(2, {}, [wrong] * 37))
    assert lines(100) == [2]


def test_a_clock_that_steps_back_changes_no_order(
    store: Store, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that was submitted later is newer, and the one that ended later is the last, whatever the time says."""
    first = make_run()
    store.submit(first, "queue")
    finish(store, first.run_id, RunStatus.SUCCEEDED)
    real = times.now
    monkeypatch.setattr(times, "now", lambda: real() - timedelta(seconds=2))
    second = make_run()
    store.submit(second, "queue")
    finish(store, second.run_id, RunStatus.SUCCEEDED)
    assert store.latest_id() == second.run_id
    assert [run.run_id for run in store.history(10)] == [second.run_id, first.run_id]


def test_everything_says_that_redis_is_away() -> None:
    """Without Redis each call raises the one error that stands for it."""
    settings = load({"REDIS_URL": "redis://127.0.0.1:1/0"})
    store = Store(connect(settings.redis_url, timeout=0.5), settings)
    for call in (store.active_id, store.begin_next, store.trim_history, store.totals, store.latest_id):
        with pytest.raises(StoreAway):
            call()


def test_events_are_bounded_however_many_come_at_once(
    settings: Settings, feed: Feed, store: Store, leases: Leases, make_run: MakeRun
) -> None:
    """One batch of far more events than may be kept leaves no more than that."""
    store.submit(run := make_run(), "queue")
    held = leases.acquire(run.run_id)
    assert held is not None
    many = [events.error(run.run_id, times.now(), level="error", message=str(n), source="t") for n in range(15_000)]
    feed.append(run.run_id, held.fence, Batch(1, {}, events=many))
    assert store.redis.xlen(keys.events(run.run_id)) <= settings.log_retention_lines
    assert feed.last_id(run.run_id) == 15_001
