"""The scripts in Redis against a model: whatever workers, clients and the reconciler do, and in whatever order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from ends import finish, queued
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared import events, keys, times
from shared.errors import Busy, Fenced, QueueFull, StateMoved
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import Client
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Store

_QUEUE_LIMIT = 3
_FINAL = [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED]


class Machine(RuleBasedStateMachine):
    """A model beside the store: what is active, who waits, who supervises, what was said."""

    store: Store
    feed: Feed
    leases: Leases
    redis: Client
    make_run: Callable[[], Run]

    @initialize()
    def begin(self) -> None:
        self.redis.flushall()
        self.active: str | None = None
        self.latest: str | None = None
        self.queue: list[str] = []
        self.ended: dict[str, RunStatus] = {}
        self.fence: dict[str, int] = {}
        self.held: str | None = None
        """The run of the lease that counts."""
        self.old: list[tuple[str, int]] = []
        """Fences of supervisors that others came after."""
        self.said: dict[str, int] = {}
        self.last: tuple[str, int, Batch] | None = None

    @rule(when_busy=st.sampled_from(["attach", "queue", "reject"]), key=st.sampled_from([None, "once"]))
    def submit(self, when_busy: Any, key: str | None) -> None:
        run = self.make_run()
        ahead = self.active or (self.queue[0] if self.queue else None)
        request = b"" if key is None else run.run_id.encode()
        try:
            found = self.store.submit(run, when_busy, key and run.run_id + key, request)
        except Busy:
            assert (when_busy, ahead is not None) == ("reject", True)
            return
        except QueueFull:
            assert (when_busy, len(self.queue)) == ("queue", _QUEUE_LIMIT)
            return
        if found.outcome == "attached":
            assert (when_busy, found.run_id) == ("attach", ahead)
        elif found.outcome == "queued":
            self.queue.append(run.run_id)
            assert found.position == len(self.queue)
        else:
            assert ahead is None
            self.active = self.latest = run.run_id
        if key:  # the same request again changes nothing
            again = self.store.submit(self.make_run(), when_busy, run.run_id + key, request)
            assert (again.replayed, again.run_id) == (True, found.run_id)
        self.said.setdefault(found.run_id, 0)

    @rule()
    def begin_next(self) -> None:
        begun = self.store.begin_next()
        if self.active is None and self.queue:
            assert begun is not None
            assert begun.run_id == self.queue[0]
            self.active = self.latest = self.queue.pop(0)
        else:
            assert begun is None

    @precondition(lambda self: self.active)
    @rule()
    def take_lease(self) -> None:
        assert self.active
        held = self.leases.acquire(self.active)
        if self.held == self.active:
            assert held is None
            return
        assert held is not None
        if self.active in self.fence:
            assert held.fence > self.fence[self.active]
            self.old.append((self.active, self.fence[self.active]))
        self.fence[self.active], self.held = held.fence, self.active

    @precondition(lambda self: self.held)
    @rule(how=st.sampled_from(["expire", "release"]))
    def lose_lease(self, how: str) -> None:
        assert self.held
        if how == "expire":
            self.redis.delete(keys.lease(self.held))
        else:
            self.leases.release(self.held, self.fence[self.held])
        self.held = None

    @precondition(lambda self: self.active in self.fence)
    @rule(lines=st.integers(0, 3))
    def append(self, lines: int) -> None:
        """The latest supervisor may write, its lease run out or not: nobody came after it."""
        assert self.active
        place = self.feed.place(self.active)
        told = [self._error(self.active, self.said[self.active] + n) for n in range(lines)]
        batch = Batch(place.batch + 1, {"said": self.said[self.active] + lines}, told)
        self.feed.append(self.active, self.fence[self.active], batch)
        self.said[self.active] += lines
        self.last = (self.active, self.fence[self.active], batch)

    @precondition(lambda self: self.last)
    @rule()
    def append_again(self) -> None:
        """A batch whose answer was lost is sent again."""
        assert self.last
        run_id, fence, batch = self.last
        if self.fence[run_id] != fence:
            with pytest.raises(Fenced):
                self.feed.append(run_id, fence, batch)
        elif self.feed.place(run_id).batch == batch.number:
            self.feed.append(run_id, fence, batch)

    @precondition(lambda self: self.active in self.fence)
    @rule()
    def append_out_of_turn(self) -> None:
        assert self.active
        number = self.feed.place(self.active).batch + 2
        with pytest.raises(StateMoved):
            self.feed.append(self.active, self.fence[self.active], Batch(number, {}, [self._error(self.active, 0)]))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def act_with_an_old_fence(self, data: st.DataObject) -> None:
        """A supervisor that slept wakes up: it can write, renew, move and end nothing."""
        run_id, fence = data.draw(st.sampled_from(self.old))
        number = self.feed.place(run_id).batch + 1
        with pytest.raises(Fenced):
            self.feed.append(run_id, fence, Batch(number, {}, [self._error(run_id, 0)]))
        with pytest.raises(Fenced):
            self.leases.renew(run_id, fence)
        with pytest.raises(Fenced):
            self.leases.release(run_id, fence)
        if run_id not in self.ended:
            with pytest.raises(Fenced):
                finish(self.store, run_id, RunStatus.FAILED, message="late", fence=fence)

    @precondition(lambda self: self.active in self.fence)
    @rule(status=st.sampled_from(_FINAL))
    def finish(self, status: RunStatus) -> None:
        assert self.active
        finish(self.store, self.active, status, fence=self.fence[self.active])
        self.ended[self.active] = status
        self.active = None

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), status=st.sampled_from(_FINAL))
    def finish_again(self, data: st.DataObject, status: RunStatus) -> None:
        run_id = data.draw(st.sampled_from(list(self.ended)))
        finish(self.store, run_id, status, message="again")

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(list(self.said)))
        after, cancelled = self.store.cancel(run_id)
        if run_id in self.ended:
            assert (after.status, cancelled) == (self.ended[run_id], False)
        elif run_id in self.queue:
            assert (after.status, cancelled) == (RunStatus.CANCELLED, True)
            self.queue.remove(run_id)
            self.ended[run_id] = RunStatus.CANCELLED
        else:
            assert (after.status, cancelled) == (RunStatus.CANCELLING, True)

    @invariant()
    def as_the_model_says(self) -> None:
        assert self.store.active_id() == self.active
        assert self.store.latest_id() == self.latest
        assert queued(self.store) == self.queue
        for run_id, said in self.said.items():
            status = self.store.get(run_id).run.status
            frames = [orjson.loads(frame) for _, frame in self.feed.read(run_id, 0, 1000)]
            assert [frame["id"] for frame in frames] == list(range(1, len(frames) + 1))
            assert [frame["data"]["message"] for frame in frames if frame["type"] == "error"] == [
                str(number) for number in range(said)
            ]
            completes = [frame["data"]["status"] for frame in frames if frame["type"] == "complete"]
            assert completes == ([self.ended[run_id].value] if run_id in self.ended else [])
            if run_id in self.ended:
                assert status is self.ended[run_id]
            else:
                assert (status is RunStatus.QUEUED) == (run_id in self.queue)

    @staticmethod
    def _error(run_id: str, number: int) -> events.Event:
        return events.error(run_id, times.now(), level="error", message=str(number), source="model")


@pytest.fixture
def machine(redis: Client, settings: Settings, make_run: Callable[..., Run]) -> type[Machine]:
    Machine.store = Store(redis, replace(settings, queue_limit=_QUEUE_LIMIT))
    Machine.feed, Machine.leases, Machine.redis = Feed(redis, settings), Leases(redis), redis
    Machine.make_run = staticmethod(make_run)
    return Machine


def test_the_scripts_do_what_the_model_says(machine: type[Machine]) -> None:
    """One run active, the queue in order, ids without holes, one `complete`, and no word from an old supervisor."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
