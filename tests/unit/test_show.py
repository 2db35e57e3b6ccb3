"""How things look in a terminal."""

from typing import Any

import pytest

from nfctl import show

PROCESS = {
    "name": "A", "pending": 0, "running": 0, "succeeded": 0, "cached": 0, "failed": 0, "retries": 0, "aborted": 0
}  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"succeeded": 3}, "A 3/3 ✔"),
        ({"succeeded": 1, "running": 1, "pending": 1}, "A 1/3 (1 running, 1 waiting)"),
        ({"succeeded": 1, "cached": 2}, "A 3/3 ✔ (2 cached)"),
        ({"failed": 1, "retries": 2}, "A 1/1 (1 failed, 2 retried)"),
        ({"aborted": 2}, "A 0/2 (2 aborted)"),
        ({}, "A 0/0 ✔"),
    ],
)
def test_a_process_is_shown_by_its_counts(counts: dict[str, int], text: str) -> None:
    """Done of all, a mark when all went well, and what else there is to know."""
    assert show.progress_line({"percent": 5, "processes": [PROCESS | counts]}) == f"[  5%] {text}"


def test_processes_stand_side_by_side() -> None:
    """A line holds all processes after the percentage."""
    line = show.progress_line({"percent": 100, "processes": [PROCESS | {"succeeded": 1}, PROCESS | {"name": "B:C"}]})
    assert line == "[100%] A 1/1 ✔  B:C 0/0 ✔"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "9.9 s"),
        (12.4, "12 s"),
        (59.6, "59 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_seconds_are_read_at_a_glance(value: float | None, text: str) -> None:
    """A duration has the two units that matter."""
    assert show.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5_347_737, "5.1 MiB"), (1 << 41, "2.0 TiB")],
)
def test_sizes_are_read_at_a_glance(value: int | None, text: str) -> None:
    """A size has the unit that keeps it short."""
    assert show.size(value) == text


def test_a_table_is_as_wide_as_needed() -> None:
    """Columns are aligned, what is missing is a dash, and no line ends in spaces."""
    rows: list[dict[str, Any]] = [{"id": "run-1", "n": 5}, {"id": "r", "n": None}, {"id": "r2"}]
    columns = [("id", "RUN"), ("n", "TASKS")]
    assert show.table(rows, columns, "No run yet.") == "RUN    TASKS\nrun-1  5\nr      -\nr2     -"
    assert show.table([], columns, "No run yet.") == "No run yet."


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a kind has its colour; in a file there are no escapes."""
    assert show.coloured("x", "failed") == "x"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert show.coloured("x", "failed") == "\x1b[31mx\x1b[0m"
    assert show.coloured("x", "no such kind") == "x"
