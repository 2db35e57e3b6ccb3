"""Redis may go away and come back: what was kept is there, and everything goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ends import finish, queued

from shared import events, settings, times
from shared.errors import StoreAway
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import connect
from shared.runs import Run, RunStatus
from shared.store import Store

MakeRun = Callable[..., Run]


def test_a_killed_redis_comes_back_with_all_that_was_kept(own_redis: Any, tmp_path: Path, make_run: MakeRun) -> None:
    """While Redis is dead each call raises StoreAway; started again, the same clients go on where they were."""
    made = settings.load({"REDIS_URL": own_redis.url, "DATA_DIR": str(tmp_path)})
    redis = connect(made.redis_url)
    redis.config_set("appendfsync", "always")
    store, feed, leases = Store(redis, made), Feed(redis, made), Leases(redis)
    store.submit(run := make_run(), "queue")
    store.submit(waiting := make_run(), "queue")
    held = leases.acquire(run.run_id)
    assert held is not None
    batch = Batch(1, {"offset": 1}, [events.error(run.run_id, times.now(), level="error", message="m", source="s")])
    feed.append(run.run_id, held.fence, batch)
    before = feed.read(run.run_id, 0)

    own_redis.kill()
    calls: list[Callable[[], Any]] = [
        lambda: store.get(run.run_id),
        lambda: store.submit(make_run(), "queue"),
        lambda: store.cancel(run.run_id),
        lambda: finish(store, run.run_id, RunStatus.FAILED),
        lambda: store.history(10),
        lambda: feed.append(run.run_id, held.fence, batch),
        lambda: feed.read(run.run_id, 0),
        lambda: leases.renew(run.run_id, held.fence),
        lambda: leases.held(run.run_id),
    ]
    for call in calls:
        with pytest.raises(StoreAway):
            call()

    own_redis.start()
    assert store.active_id() == run.run_id
    assert queued(store) == [waiting.run_id]
    assert feed.read(run.run_id, 0) == before
    assert leases.renew(run.run_id, held.fence).status is RunStatus.STARTING
    feed.append(run.run_id, held.fence, batch)
    assert feed.read(run.run_id, 0) == before
    finish(store, run.run_id, RunStatus.SUCCEEDED, fence=held.fence)
    begun = store.begin_next()
    assert begun is not None
    assert begun.run_id == waiting.run_id


@pytest.mark.parametrize(
    "command",
    ["CONFIG SET maxmemory 1", "CONFIG SET requirepass hunter2", "REPLICAOF 127.0.0.1 1"],
    ids=["full", "locked", "replica"],
)
def test_a_redis_that_cannot_work_is_away(own_redis: Any, tmp_path: Path, make_run: MakeRun, command: str) -> None:
    """A Redis that is full, wants a password, or cannot be written to is as good as none."""
    made = settings.load({"REDIS_URL": own_redis.url, "DATA_DIR": str(tmp_path)})
    connect(made.redis_url).execute_command(*command.split())
    with pytest.raises(StoreAway):
        Store(connect(made.redis_url), made).submit(make_run(), "queue")
