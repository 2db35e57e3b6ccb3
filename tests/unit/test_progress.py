"""Progress: counts by process, folded from what the console says."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import console
from worker.command import TRACE_FIELDS
from worker.progress import Progress

AT = "2026-01-31T12:00:00.000000Z"
COUNTS = ("pending", "running", "succeeded", "cached", "failed", "retries", "aborted")


def folded(lines: Iterable[str], progress: Progress | None = None) -> Progress:
    progress = progress or Progress()
    for line in lines:
        progress.fold(console.read(console.plain(line)), AT)
    return progress


def counts(progress: Progress) -> dict[str, dict[str, int]]:
    """The counts of each process that are not zero."""
    return {
        process["name"]: {name: process[name] for name in COUNTS if process[name]}
        for process in progress.data()["processes"]
    }


def trace(task: str, name: str, status: str, action: str = "-", **more: str) -> str:
    values = {"task_id": "1", "hash": task, "name": name, "process": name.partition(" (")[0], "status": status}
    return "\t".join((values | {"error_action": action} | more).get(field, "-") for field in TRACE_FIELDS)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("plain-ok", {"SAY": {"running": 3}, "BOOM": {"running": 3}}),
        ("plain-sigterm", {"SLOW": {"running": 2}}),
        ("plain+trace-stdout", {"A": {"succeeded": 2}}),
        ("k8s-job-fail+trace-stdout", {"SAY": {"succeeded": 2}, "BOOM": {"failed": 2, "retries": 2}}),
        ("ansi-piped", {"SAY": {"succeeded": 3}, "BOOM": {"succeeded": 3}}),
    ],
)
def test_real_consoles_give_the_right_counts(
    sample: Callable[[str], list[str]], name: str, wanted: dict[str, dict[str, int]]
) -> None:
    """A whole real console, folded, counts each task once and under the right process."""
    assert counts(folded(sample(name))) == wanted


def test_a_resumed_run_counts_cached_tasks() -> None:
    """A cached task is told by a line and by a trace row, and counts once; a stored one has no row."""
    progress = folded(
        [
            "[7b/5e1db5] Cached process > SAY (s2)",
            trace("7b/5e1db5", "SAY (s2)", "CACHED"),
            "[skipping] Stored process > KEEP",
        ]
    )
    assert counts(progress) == {"SAY": {"cached": 1}, "KEEP": {"cached": 1}}


def test_a_retried_task_waits_runs_and_is_no_failure() -> None:
    """Between its attempts a task waits; a failed attempt that is tried again is a retry."""
    progress = folded(["[aa/000001] Submitted process > B (1)"])
    folded(["[aa/000001] NOTE: Process `B (1)` terminated with an error -- Execution is retried (1)"], progress)
    folded([trace("aa/000001", "B (1)", "FAILED", "RETRY")], progress)
    assert counts(progress) == {"B": {"pending": 1, "retries": 1}}
    folded(["[aa/000002] Re-submitted process > B (1)"], progress)
    assert counts(progress) == {"B": {"running": 1, "retries": 1}}
    folded([trace("aa/000002", "B (1)", "COMPLETED")], progress)
    assert counts(progress) == {"B": {"succeeded": 1, "retries": 1}}


def test_a_retried_task_whose_row_comes_first_does_not_wait_for_ever() -> None:
    """Trace and console are two writers: a row may come before the line that tells of its submission."""
    progress = folded(
        [
            "[aa/000001] Submitted process > B (1)",
            trace("aa/000001", "B (1)", "FAILED", "RETRY"),
            "[aa/000001] NOTE: Process `B (1)` terminated with an error -- Execution is retried (1)",
            trace("aa/000002", "B (1)", "COMPLETED"),
            "[aa/000002] Re-submitted process > B (1)",
        ]
    )
    assert counts(progress) == {"B": {"succeeded": 1, "retries": 1}}


def test_a_row_before_its_submission_counts_once() -> None:
    """A quick task's row may come before its line."""
    progress = folded([trace("aa/000001", "B (1)", "COMPLETED"), "[aa/000001] Submitted process > B (1)"])
    assert counts(progress) == {"B": {"succeeded": 1}}


def test_rows_that_come_twice_count_once() -> None:
    """A row or a submission that is read again changes nothing."""
    lines = ["[aa/000001] Submitted process > B (1)", trace("aa/000001", "B (1)", "COMPLETED")]
    assert folded([*lines, *lines, lines[1]]).state() == folded(lines).state()


def test_aborted_tasks_are_counted() -> None:
    """A task that Nextflow cut off is told by its row; one whose row never came is aborted at the end."""
    progress = folded(
        [
            "[aa/000001] Submitted process > B (1)",
            "[aa/000002] Submitted process > B (2)",
            trace("aa/000001", "B (1)", "ABORTED"),
        ]
    )
    assert counts(progress) == {"B": {"running": 1, "aborted": 1}}
    progress.end(succeeded=False)
    assert counts(progress) == {"B": {"aborted": 2}}
    assert (progress.data()["completed"], progress.data()["total"]) == (0, 2)
    assert progress.data()["percent"] == 0


def test_an_ignored_failure_is_a_failure() -> None:
    """A task whose error is ignored failed, and nothing waits for it."""
    progress = folded(
        [
            "[aa/000001] Submitted process > B (1)",
            "[aa/000001] NOTE: Process `B (1)` terminated with an error exit status (3) -- Error is ignored",
            trace("aa/000001", "B (1)", "FAILED", "IGNORE"),
        ]
    )
    assert counts(progress) == {"B": {"failed": 1}}


def test_success_alone_is_a_hundred_percent() -> None:
    """However many tasks have ended, only the end of the run makes it whole."""
    lines = [trace(f"aa/{number:06x}", "B (1)", "COMPLETED") for number in range(1000)]
    progress = folded(lines)
    assert progress.data()["percent"] == 99
    progress.end(succeeded=True)
    assert progress.data()["percent"] == 100


def test_a_task_keeps_its_index_and_tells_its_fields() -> None:
    """A submission and the row of the same task have one index; times are RFC 3339, numbers are numbers."""
    progress = Progress()
    first = progress.fold(console.read("[aa/000001] Submitted process > A:B (s 1)"), AT)
    assert first is not None
    assert first[1] | {"task_id": 1, "status": "SUBMITTED", "tag": "s 1", "process": "A:B", "attempt": 1} == first[1]
    row = trace("aa/000001", "A:B (s 1)", "FAILED", exit="7", attempt="2", submit="1795412040470", tag="s 1")
    last = progress.fold(console.read(row), AT)
    assert last is not None
    index, fields = last
    assert index == first[0] == 1
    assert (fields["exit"], fields["attempt"], fields["tag"], fields["native_id"]) == (7, 2, "s 1", None)
    assert fields["submit"] == "2026-11-23T05:34:00.470Z"
    assert set(first[1]) <= set(fields)


def test_the_executor_is_told() -> None:
    """The ANSI console names its executors."""
    assert folded(["executor >  k8s (3)"]).data()["executor"] == "k8s (3)"


def test_what_is_remembered_does_not_grow_with_the_run() -> None:
    """The state goes with every batch, so ten thousand ended tasks must not make it large."""
    progress = Progress()
    for number in range(10_000):
        name = f"B ({number})"
        folded(
            [f"[aa/{number:06x}] Submitted process > {name}", trace(f"aa/{number:06x}", name, "COMPLETED")], progress
        )
    assert len(json.dumps(progress.state())) < 3000


@pytest.mark.parametrize("digits", [20, 5000])
def test_imitated_numbers_stay_json(digits: int) -> None:
    """Absurd numbers that a pipeline prints do not break the count, nor what is kept of it."""
    number = "9" * digits
    progress = Progress()
    rows = [f"[-        ] X | 0 of {number}", trace("aa/000001", "B", "FAILED", exit=number, peak_rss=number)]
    told = [progress.fold(console.read(row), AT) for row in rows]
    assert orjson.dumps([progress.state(), progress.data(), told])


@pytest.mark.parametrize(("told", "kept"), [("-", None), ("0", None), ("4096", 4096)])
def test_memory_that_was_never_sampled_is_unknown(told: str, kept: int | None) -> None:
    """A task that ends before Nextflow's first sample has a peak of 0 in the trace, and none here."""
    ended = Progress().fold(console.read(trace("aa/000001", "B", "COMPLETED", peak_rss=told)), AT)
    assert ended is not None
    assert ended[1]["peak_rss_bytes"] == kept


hashes = st.integers(0, 12).map(lambda number: f"aa/{number:06x}")
names = st.sampled_from(["A (1)", "A (2)", "B", "S:C (x (y))"])
said_lines = st.one_of(
    st.builds("[{}] Submitted process > {}".format, hashes, names),
    st.builds("[{}] Re-submitted process > {}".format, hashes, names),
    st.builds("[{}] Cached process > {}".format, hashes, names),
    st.builds("[skipping] Stored process > {}".format, names),
    st.builds("[{}] NOTE: Process `{}` terminated -- Execution is retried (1)".format, hashes, names),
    st.builds(trace, hashes, names, st.sampled_from(["COMPLETED", "FAILED", "ABORTED", "CACHED", "?"]),
              st.sampled_from(["-", "RETRY", "IGNORE"])),
    st.builds("[-        ] {} | {} of {}, cached: {}, failed: {}, retries: {}".format, names,
              *[st.integers(0, 9)] * 5),
    st.just("executor >  local (2)"),
    st.text(max_size=20),
)  # fmt: skip


def check(data: dict[str, Any], percent_before: int) -> None:
    assert percent_before <= data["percent"] <= 99
    assert 0 <= data["completed"] <= data["total"]
    ended, others = ("succeeded", "cached", "failed"), ("pending", "running", "aborted")
    assert data["completed"] == sum(process[name] for process in data["processes"] for name in ended)
    assert data["total"] == data["completed"] + sum(process[name] for process in data["processes"] for name in others)
    assert all(process[name] >= 0 for process in data["processes"] for name in COUNTS)


@given(st.lists(said_lines, max_size=60))
def test_counts_add_up_and_percent_never_goes_down(lines: list[str]) -> None:
    """Whatever comes in whatever order, sums hold after each line, nothing is negative, and percent only grows."""
    progress, percent = Progress(), 0
    for line in lines:
        folded([line], progress)
        check(data := progress.data(), percent)
        percent = data["percent"]
    progress.end(succeeded=True)
    data = progress.data()
    aborted = sum(process["aborted"] for process in data["processes"])
    assert (data["percent"], data["completed"]) == (100, data["total"] - aborted)


@given(st.lists(said_lines, max_size=40), st.data())
def test_another_supervisor_goes_on_with_the_same_counts(lines: list[str], data: st.DataObject) -> None:
    """Saved as JSON and restored after any lines, the count ends as if it had never been interrupted."""
    cuts = data.draw(st.sets(st.integers(0, len(lines))))
    progress = Progress()
    for number, line in enumerate(lines):
        if number in cuts:
            progress = Progress.from_state(orjson.loads(orjson.dumps(progress.state())))
        folded([line], progress)
    assert progress.state() == folded(lines).state()
