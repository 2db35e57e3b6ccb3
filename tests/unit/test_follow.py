"""A run in the terminal: what is said of it, and where."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfctl.client import Client, Unreachable
from nfctl.follow import follow_run

ID = "run-20260131-000000-abcdef12"


class Told(Client):
    """A client that is told these frames."""

    def __init__(self, *frames: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:1", None)
        self._told = frames

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        if path != f"/runs/{ID}/events":
            raise Unreachable(method)
        kept = [told for told in self._told if told["id"]]
        earlier = [told for told in kept if told["id"] < arguments["params"].get("before", 0)]
        return {"last_id": kept[-1]["id"], "events": earlier[-2:]}

    def follow(self, run_id: str, since: int = 0, *, away: Callable[[str], None] = lambda _: None) -> Iterator[Any]:
        assert run_id == ID
        away("The service does not answer.")
        yield from (told for told in self._told if told["id"] is None or told["id"] > since)


def frame(kind: str, number: int | None, **data: Any) -> dict[str, Any]:
    return {"type": kind, "id": number, "run_id": ID, "data": data}


def line(number: int, *texts: str) -> dict[str, Any]:
    return frame("log", number, lines=[{"message": text} for text in texts], count=len(texts))


def complete(number: int, status: str, exit_code: int) -> dict[str, Any]:
    run = {"run_id": ID, "status": status, "message": "Its words.", "exit_code": exit_code}
    return frame("complete", number, status=status, run=run, duration_seconds=3, exit_code=exit_code)


def test_the_log_is_printed_and_the_rest_is_told_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to stdout with the end; that nobody answers, or that lines are gone, goes to stderr."""
    snapshot = frame("status", None, status="running", first_id=1, last_id=2)
    later = frame("status", None, status="running", first_id=7, last_id=8)
    told = Told(snapshot, line(1, "one"), line(2, "two"), later, line(7, "seven"), complete(8, "succeeded", 0))
    assert follow_run(told, ID) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["one", "two", "seven", f"{ID} succeeded after 3 s: Its words."]
    away, gap = said.err.splitlines()
    assert "does not answer" in away
    assert "no longer kept" in gap


def test_progress_is_told_when_a_task_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """One that was cut off too, though no more of the work is done by that."""
    none = dict.fromkeys(("pending", "running", "succeeded", "cached", "failed", "retries", "aborted"), 0)
    frames = [
        frame("progress", number, percent=0, processes=[{"name": "A", **none, **counts}])
        for number, counts in enumerate([{"running": 1}, {"running": 2}, {"aborted": 2}], start=1)
    ]
    follow_run(Told(*frames, complete(4, "cancelled", 1)), ID)
    shown = [said for said in capsys.readouterr().out.splitlines() if "%" in said]
    assert shown == ["[  0%] A 0/1 (1 running)", "[  0%] A 0/2 (2 aborted)"]


def test_one_gap_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """More of it went before the first of what is kept could be sent."""
    greetings = [frame("status", None, status="running", first_id=first, last_id=9) for first in (4, 6)]
    assert follow_run(Told(*greetings, line(6, "six"), complete(7, "succeeded", 0)), ID) == 0
    assert capsys.readouterr().err.count("no longer kept") == 1


@pytest.mark.parametrize("tail", [1, 2, 3, 4, 5, 6, 9])
def test_the_newest_lines_alone(tail: int, capsys: pytest.CaptureFixture[str]) -> None:
    """However they are shared out over events, and with others between them."""
    snapshot = frame("status", None, status="running", first_id=1, last_id=5)
    warning = frame("error", 3, source="kubernetes", message="No node.", level="warning", hint=None)
    told = Told(snapshot, line(1, "1", "2"), line(2, "3"), warning, line(4, "4", "5", "6"), complete(5, "succeeded", 0))
    assert follow_run(told, ID, tail=tail) == 0
    *shown, _ = capsys.readouterr().out.splitlines()
    assert [said for said in shown if said != "No node."] == ["1", "2", "3", "4", "5", "6"][-tail:]
    assert ("No node." in shown) == (tail > 3)


def test_nothing_is_amiss_with_a_connection_that_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """The next event is still kept: there is no gap to tell. The exit code is the run's."""
    snapshot = frame("status", None, status="running", first_id=2, last_id=2)
    assert follow_run(Told(line(1, "one"), snapshot, line(2, "two"), complete(3, "failed", 7)), ID) == 7
    assert "no longer kept" not in capsys.readouterr().err
