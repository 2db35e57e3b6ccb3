"""The first frame of a socket, and where its viewer begins."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from ends import finish, queued
from flask import Flask
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from shared import events, keys, times
from shared.events import LogLine
from shared.feed import Batch
from shared.lease import Leases
from shared.runs import Run, RunStatus
from shared.settings import Settings
from shared.store import Standing
from web.hub import Hub, Viewer
from web.outbox import Stalled
from web.sockets import _greeted
from web.wiring import Service, connect_service

Greeted = tuple[Viewer, dict[str, Any]]


@pytest.fixture
def service(settings: Settings) -> Service:
    """One that keeps fifty lines of a run."""
    return connect_service(replace(settings, log_retention_lines=50))


@pytest.fixture
def run_id(service: Service, leases: Leases, make_run: Callable[..., Run]) -> str:
    """A run at work that has said a hundred lines, an event each."""
    run_id = service.store.submit(make_run(), "queue").run_id
    held = leases.acquire(run_id)
    assert held is not None
    for number in range(1, 101):
        line = LogLine("2026-01-31T00:00:00Z", f"line {number}", "p", "nextflow", "stdout", number)
        service.feed.append(run_id, held.fence, Batch(number, {}, [events.log(run_id, [line], times.now())]))
    return run_id


def greeted(service: Service, run_id: str, since: int | None, offered: list[bytes] | None = None) -> Greeted:
    """The viewer, and the data of its first frame."""
    offered = [] if offered is None else offered
    connection: Any = SimpleNamespace(outbox=SimpleNamespace(offer=offered.append), close=None, ping=None)
    hub: Any = SimpleNamespace(current=run_id, presence=SimpleNamespace(total=1))
    query = f"run_id={run_id}" + (f"&since={since}" if since is not None else "")
    with Flask(__name__).test_request_context(f"/?{query}"):
        viewer = _greeted(connection, service, hub, service.store.standing(run_id))
    [frame] = offered
    return viewer, orjson.loads(frame[frame.index(b"{") :])["data"]


def test_a_viewer_begins_with_what_is_kept_and_is_told_so(service: Service, run_id: str) -> None:
    """From an event that is kept on; from an earlier one, the first frame tells which are gone."""
    last = service.feed.last_id(run_id)
    first = service.feed.first_id(run_id, last)
    assert 1 < first < last
    for since in (None, last, first, first - 1):
        viewer, data = greeted(service, run_id, since)
        assert viewer.cursor == (last if since is None else since)
    for since in (0, first - 2):
        viewer, data = greeted(service, run_id, since)
        assert (viewer.cursor, data["first_id"]) == (first - 1, first)


def test_a_viewer_is_told_who_waits(service: Service, run_id: str, make_run: Callable[..., Run]) -> None:
    """With their places, whether it sees a run or there is none."""
    waiting = [service.store.submit(make_run(), "queue").run_id for _ in range(2)]
    _, data = greeted(service, run_id, None)
    assert [(entry["run_id"], entry["position"]) for entry in data["queue"]] == [(waiting[0], 1), (waiting[1], 2)]
    assert queued(service.store) == waiting


def test_what_goes_right_after_the_first_frame_is_no_silent_gap(service: Service, run_id: str) -> None:
    """Events that it told of as kept are trimmed before they are read: the viewer is told anew, and stays."""
    told: list[bytes] = []
    viewer, data = greeted(service, run_id, 0, told)
    for number in range(101, 121):
        line = LogLine("2026-01-31T00:00:00Z", f"line {number}", "p", "nextflow", "stdout", number)
        service.feed.append(run_id, 1, Batch(number, {}, [events.log(run_id, [line], times.now())]))
    last = service.feed.last_id(run_id)
    first = service.feed.first_id(run_id, last)
    assert first > data["first_id"]

    def offer(frame: bytes, **_: int) -> bool:
        told.append(frame)
        return True

    outbox: Any = SimpleNamespace(offer=offer, flush=lambda: None)
    viewer.outbox = outbox
    nobody: Any = None
    hub = Hub(nobody, service.store, service.feed, nobody)
    hub._write_kept(viewer)
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(b"".join(told[1:]))
    anew, *events_ = (orjson.loads(event.data) for event in client.events() if isinstance(event, TextMessage))
    assert (anew["id"], anew["data"]["first_id"]) == (None, first)
    assert [event["id"] for event in events_] == list(range(first, last + 1))
    # From then on it is no newcomer.
    viewer.cursor = 0
    with pytest.raises(Stalled):
        hub._write_kept(viewer)


def test_a_run_whose_events_are_gone_is_shown_without_them(service: Service, run_id: str) -> None:
    """Somebody deleted them in Redis: the first frame says that all are gone, and what comes next is seen."""
    last = service.feed.last_id(run_id)
    service.redis.delete(keys.events(run_id))
    viewer, data = greeted(service, run_id, 0)
    assert (viewer.cursor, data["first_id"], data["last_id"]) == (last, last + 1, last)
    nobody: Any = None
    Hub(nobody, service.store, service.feed, nobody)._write_kept(viewer)
    assert viewer.cursor == last


@pytest.mark.parametrize("before", [True, False])
def test_what_is_told_of_a_run_is_as_old_as_the_id_beside_it(
    service: Service, run_id: str, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """The run ends while the first frame is made: the frame says so, or else `complete` comes after it."""
    ask = service.store.standing

    def end(wanted: str) -> Standing:
        found = None if before else ask(wanted)
        finish(service.store, wanted, RunStatus.FAILED)
        return found or ask(wanted)

    monkeypatch.setattr(service.store, "standing", end)
    viewer, data = greeted(service, run_id, None)
    told = [orjson.loads(frame)["type"] for _, frame in service.feed.read(run_id, viewer.cursor, 10)]
    assert told[-1:] == ([] if data["status"] == "failed" else ["complete"])
    assert data["last_id"] == viewer.cursor
