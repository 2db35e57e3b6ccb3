"""What may die may die: the run goes on, and nobody is told anything twice, late or wrong."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from shared import times

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


class Watcher(threading.Thread):
    """Follows a run through every loss of the connection and keeps the ids and numbered lines that it was told."""

    def __init__(self, service: Any, run_id: str) -> None:
        super().__init__(daemon=True)
        self._service, self._run_id = service, run_id
        self.ids: list[int] = []
        self.lines: list[str] = []
        self.completes = 0

    def run(self) -> None:
        for event in self._service.client.follow(self._run_id):
            if event["id"] is not None:
                self.ids.append(event["id"])
            if event["type"] == "log":
                self.lines += [line["message"] for line in event["data"]["lines"]]
            self.completes += event["type"] == "complete"


def start(service: Any, pipeline: str, **parameters: int) -> tuple[str, Watcher]:
    """Start the counting pipeline and wait until it has counted a little."""
    run_id = service.submit(pipeline, parameters=parameters)
    watcher = Watcher(service, run_id)
    watcher.start()
    service.wait(lambda: any(line.startswith("number 5") for line in watcher.lines), 60)
    return run_id, watcher


def check(service: Any, run_id: str, watcher: Watcher, lines: int) -> None:
    """The run succeeded; its viewer and its kept log have each line and each event once and in order."""
    info = service.ended(run_id, 180)
    assert (info["status"], info["exit_code"]) == ("succeeded", 0)
    watcher.join(30)
    numbers = [f"number {n}" for n in range(1, lines + 1)]
    assert [line for line in watcher.lines if line.startswith("number")] == numbers
    assert [line for line in service.lines(run_id) if line.startswith("number")] == numbers
    assert watcher.ids == list(range(1, len(watcher.ids) + 1))
    assert watcher.completes == 1
    assert [event["type"] for event in service.events(run_id)].count("complete") == 1
    assert service.of_run(run_id) == []


@pytest.mark.parametrize("victim", ["parent", "child", "both"])
def test_a_killed_worker_is_replaced_and_the_run_adopted(own_service: Any, counting: str, victim: str) -> None:
    """SIGKILL of the Celery parent, its child or both: the run goes on, and nothing is lost or doubled."""
    run_id, watcher = start(own_service, counting, lines=150)
    pids = own_service.children("worker@")
    for pid in {"parent": pids[:1], "child": pids[1:2], "both": pids[:2]}[victim]:
        os.kill(pid, signal.SIGKILL)
    check(own_service, run_id, watcher, 150)


def test_a_worker_that_is_told_to_stop_hands_the_run_over(own_service: Any, counting: str) -> None:
    """SIGTERM twice in a row, as a rolling update does it: each next worker takes up the run."""
    run_id, watcher = start(own_service, counting, lines=150)
    for _ in range(2):
        [parent, *_] = own_service.children("worker@")
        os.kill(parent, signal.SIGTERM)
        own_service.wait(lambda old=parent: own_service.children("worker@")[:1] not in ([], [old]))
        seen = len(watcher.lines)
        own_service.wait(lambda seen=seen: len(watcher.lines) > seen)
    check(own_service, run_id, watcher, 150)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_redis_may_restart_under_a_run(own_service: Any, counting: str, number: int) -> None:
    """What it had kept is there again, and what was printed meanwhile comes after."""
    run_id, watcher = start(own_service, counting, lines=150)
    os.kill(own_service.children("redis-server")[0], number)
    check(own_service, run_id, watcher, 150)


def test_the_service_may_stop_and_start_under_a_run(own_service: Any, counting: str) -> None:
    """Ctrl-C stops the service and not the run; the next start takes it up, and the history is there."""
    earlier = own_service.submit("hello", parameters={"fast": True})
    own_service.ended(earlier)
    run_id, watcher = start(own_service, counting, lines=150)
    assert own_service.stop(signal.SIGINT) == 0
    assert own_service.of_run(run_id)
    assert run_id in own_service.output.read_text()
    own_service.start()
    check(own_service, run_id, watcher, 150)
    history = own_service.client.call("GET", "/history")
    assert [entry["run_id"] for entry in history] == [run_id, earlier]


def test_a_run_that_ended_while_nobody_watched_is_told_as_it_was(own_service: Any, counting: str) -> None:
    """The worker is away when the run ends; its end is found and told."""
    run_id, watcher = start(own_service, counting, lines=60)
    own_service.stop()
    own_service.wait(lambda: (own_service.data_dir / "runs" / run_id / "exit.json").exists(), 60)
    gone = times.to_text(times.now())
    own_service.start()
    check(own_service, run_id, watcher, 60)
    assert own_service.run(run_id)["finished_at"] <= gone


def test_a_killed_web_process_only_costs_a_reconnect(own_service: Any, counting: str) -> None:
    """Its viewers come back by themselves and miss nothing."""
    run_id, watcher = start(own_service, counting, lines=150)
    for pid in own_service.children("gunicorn")[1:]:
        os.kill(pid, signal.SIGKILL)
    check(own_service, run_id, watcher, 150)


def test_a_second_worker_by_mistake_does_no_harm(own_service: Any, counting: str) -> None:
    """Two workers and two runs in line: never more than one at work, each told once."""
    [first, *_] = own_service.children("worker@")
    entries = Path(f"/proc/{first}/environ").read_text().split("\0")
    environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", "worker@second"]
    second = subprocess.Popen(
        [*command, "-Q", "runs", "-P", "prefork", "-c", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        run_id, watcher = start(own_service, counting, lines=100)
        following = [own_service.submit(counting, parameters={"lines": 20}) for _ in range(2)]
        active = set()
        while own_service.run(run_id)["status"] == "running":
            active.add(len([one for one in (run_id, *following) if own_service.of_run(one)]))
        assert active <= {0, 1}
        check(own_service, run_id, watcher, 100)
        for one in following:
            assert own_service.ended(one, 120)["status"] == "succeeded"
            assert [event["type"] for event in own_service.events(one)].count("complete") == 1
    finally:
        second.terminate()
        second.wait(30)


def test_without_redis_the_service_says_so_and_heals(own_service: Any) -> None:
    """While Redis is away: 503 with Retry-After, alive all the same; afterwards all is well by itself."""
    [pid, *_] = own_service.children("redis-server")
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = own_service.get("/api/v1/pipeline/status")
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        health = own_service.get("/health")
        assert health.status_code == 503
        assert health.json()["checks"]["redis"]["ok"] is False
        assert own_service.get("/healthz").status_code == 200
        assert "nfctl_redis_up 0.0" in own_service.get("/metrics").text
    finally:
        os.kill(pid, signal.SIGCONT)
    own_service.wait(lambda: own_service.get("/health").status_code == 200)
    assert own_service.ended(own_service.submit("hello", parameters={"fast": True}))["status"] == "succeeded"
