"""What tests with a real Redis share: runs to submit, patience, and the API on that Redis."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from ends import finish
from flask import Flask
from flask.testing import FlaskClient
from kube_lab import Lab

from shared import times
from shared.runs import Run, RunStatus, new_run_id, new_session_id
from shared.settings import Settings
from shared.store import Store
from web.app import create_app
from worker.kube import carriage, follower, patience, salvage, telling, watch

T = TypeVar("T")
MakeRun = Callable[..., Run]
Ended = Callable[..., Run]


class Eventually(Protocol):
    """Asks again and again."""

    def __call__(self, ask: Callable[[], T], seconds: float = 20.0) -> T: ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """The first true answer to a question; fails when there is none for so long."""

    def ask_until(ask: Callable[[], T], seconds: float = 20.0) -> T:
        deadline = time.monotonic() + seconds
        while not (answer := ask()):
            if time.monotonic() > deadline:
                pytest.fail(f"still {answer!r} after {seconds} s")
            time.sleep(0.01)
        return answer

    return ask_until


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """A run not yet submitted; values may be given by name."""

    def make(**values: Any) -> Run:
        at = times.now()
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        defaults: dict[str, Any] = {
            "run_id": new_run_id(at),
            "pipeline": "hello",
            "session_id": new_session_id(),
            "queued_at": at,
        }
        return Run(**(defaults | values))

    return make


@pytest.fixture
def ended(store: Store, make_run: MakeRun) -> Ended:
    """Submits a run and ends it."""

    def end(status: RunStatus = RunStatus.SUCCEEDED, **values: Any) -> Run:
        run = make_run(**values)
        store.submit(run, "reject")
        finish(store, run.run_id, status, message=f"It {status}.", exit_code=0)
        return store.get(run.run_id).run

    return end


@pytest.fixture
def app(settings: Settings) -> Flask:
    """The web application on the test's Redis; its hub is not started."""
    return create_app(settings)


@pytest.fixture
def api(app: Flask) -> FlaskClient:
    """A client of the API."""
    return app.test_client()


@pytest.fixture
def lab(tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A fake Kubernetes with nothing in it, and a run to be carried there, by workers that are quick to try again."""
    for module in (follower, patience, watch):
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.02)
        monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.2)
    for module in (carriage, telling):
        monkeypatch.setattr(module, "_PULSE_SECONDS", 0.05)
    monkeypatch.setattr(salvage, "_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(salvage, "_PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(salvage, "_HURRIED_SECONDS", 0.2)
    made = Lab(tmp_path, make_run())
    yield made
    made.close()
