"""What lies in Redis is what `docs/redis.md` says: every key has a documented pattern, type and bound."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ends import queued
from flask.testing import FlaskClient

from shared import keys
from shared.broker import Broker, make_celery
from shared.feed import Batch, Feed
from shared.lease import Leases
from shared.redis_client import Client
from shared.runs import Run
from shared.settings import Settings
from shared.store import Store
from web.presence import Presence
from worker.reconciler import reconcile

MakeRun = Callable[..., Run]
PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
API = "/api/v1/pipeline"


@dataclass(frozen=True)
class Documented:
    """A row of the table: what a key looks like, its type, and whether it expires always, in the end or never."""

    pattern: str
    type: str
    expires: str

    def fits(self, key: str) -> bool:
        """Whether a key looks like this; a name in angle brackets stands for any text without colons."""
        parts = re.split(r"(<[^>]+>)", self.pattern)
        pattern = "".join("[^:]+" if part.startswith("<") else re.escape(part) for part in parts)
        return re.fullmatch(pattern, key) is not None


@pytest.fixture(scope="module")
def documented() -> list[Documented]:
    """The rows of the tables on the page."""
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [Documented(*row) for row in rows]


@pytest.fixture
def used(
    api: FlaskClient, settings: Settings, redis: Client, store: Store, feed: Feed, leases: Leases, make_run: MakeRun
) -> Client:
    """A Redis after all kinds of use."""
    broker = Broker(make_celery(settings), redis)
    api.post(f"{API}/run", json={"pipeline": "hello"}, headers={"Idempotency-Key": "key"})
    api.post(f"{API}/run", json={"pipeline": "hello", "when_busy": "queue"})
    api.post(f"{API}/ticket")
    run_id = store.active_id() or ""
    held = leases.acquire(run_id)
    assert held is not None
    feed.append(run_id, held.fence, Batch(1, {}, tasks=[(1, {"task_id": 1})]))
    store.submit(make_run(), "queue")
    store.cancel(queued(store)[-1])
    Presence(redis, 10).join()
    broker.ask_worker(0.1)
    reconcile(store, leases, broker, alone_before=None)
    store.report_strays([])
    api.get("/health")
    return redis


def test_every_key_is_documented(used: Client, documented: list[Documented]) -> None:
    """No key lies in Redis that the page does not know, and each has the type that it gives."""
    assert len(used.keys("*")) > 10
    for key in used.keys("*"):
        fitting = [row for row in documented if row.fits(key.decode())]
        assert [row.type for row in fitting] == [used.type(key).decode()], key


def test_every_key_of_ours_is_met(used: Client, documented: list[Documented]) -> None:
    """Each of our own patterns is one that use leaves behind, so the page names none that is gone."""
    found = [key.decode() for key in used.keys("*")]
    ours = [row for row in documented if row.pattern.startswith(keys.PREFIX) and keys.CELERY_PREFIX not in row.pattern]
    assert len(ours) >= 10
    assert [row.pattern for row in ours if not any(row.fits(key) for key in found)] == []


def test_what_must_expire_does(used: Client, documented: list[Documented]) -> None:
    """A key that is said to expire always has a time to live, and one that never does has none."""
    for key in used.keys("*"):
        expires = next(row.expires for row in documented if row.fits(key.decode()))
        if expires != "ended":
            assert (used.ttl(key) >= 0) is (expires == "always"), key


def test_the_channel_is_documented() -> None:
    """The channel is no key, but a name that others could meet."""
    assert f"`{keys.CHANNEL}`" in PAGE.read_text(encoding="utf-8")
