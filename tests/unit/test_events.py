"""Events: each has the one shape that clients know."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import events
from shared.events import Event, EventType, LogLine
from shared.runs import Run, RunStatus

AT = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)


def framed(event: Event, number: int | None = 7) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(events.with_id(event.body(), number))
    return frame


@pytest.mark.parametrize("number", [None, 0, 1, 2**53])
def test_a_frame_is_json_with_its_id(run: Run, number: int | None) -> None:
    """A frame holds type, data, timestamp, run id and id, and nothing else; no event has the id null."""
    frame = framed(events.status(run, AT), number)
    assert set(frame) == {"type", "data", "timestamp", "run_id", "id"}
    assert (frame["id"], frame["run_id"], frame["timestamp"]) == (number, run.run_id, "2026-01-31T23:59:59.123Z")


@given(text=st.text())
def test_any_text_survives_the_way_into_a_frame(text: str) -> None:
    """Quotes, newlines, NUL bytes and `"id":` in a message change nothing of the frame around it."""
    line = LogLine("2026-01-31T00:00:00Z", text, "nextflow-r", "nextflow", "stdout", 1)
    for event in (
        events.log("r", [line], AT),
        events.error("r", AT, level="error", message=text, source="nextflow"),
    ):
        frame = framed(event)
        assert frame["id"] == 7
        assert text in (frame["data"].get("message"), frame["data"].get("lines", [{}])[0].get("message"))


def test_a_status_tells_the_whole_run(run: Run) -> None:
    """`status` data is RunInfo and the percentage."""
    assert framed(events.status(run, AT, 5))["data"] == run.info() | {"progress_percent": 5}


def test_a_log_event_counts_its_lines() -> None:
    """`log` data holds lines of six fields and their count, which is also what retention counts."""
    lines = [LogLine("2026-01-31T00:00:00Z", f"line {n}", "nextflow-r", "nextflow", "stderr", n) for n in (1, 2)]
    event = events.log("r", lines, AT)
    data = framed(event)["data"]
    assert (event.type, event.lines, data["count"]) == (EventType.LOG, 2, 2)
    assert data["lines"][1] == {
        "timestamp": "2026-01-31T00:00:00Z",
        "message": "line 2",
        "pod": "nextflow-r",
        "container": "nextflow",
        "stream": "stderr",
        "line": 2,
    }


def test_an_error_names_task_and_hint_only_when_known() -> None:
    """`error` data has no empty fields."""
    bare = framed(events.error("r", AT, level="warning", message="m", source="nextflow"))["data"]
    assert bare == {"level": "warning", "message": "m", "source": "nextflow"}
    full = framed(events.error("r", AT, level="error", message="m", source="nextflow", task="A (1)", hint="h"))["data"]
    assert full == {"level": "error", "message": "m", "source": "nextflow", "task": "A (1)", "hint": "h"}


def test_complete_tells_the_end(run: Run) -> None:
    """`complete` data holds the final status, the run, its seconds and its exit code."""
    ended = run.moved(RunStatus.FAILED, AT, message="no", exit_code=1)
    assert framed(events.complete(ended, AT))["data"] == {
        "status": "failed",
        "run": ended.info(),
        "duration_seconds": 43199.123,
        "exit_code": 1,
    }


def test_the_types_are_those_of_the_contract() -> None:
    """There are five kinds of frame."""
    assert {str(kind) for kind in EventType} == {"status", "progress", "log", "error", "complete"}
