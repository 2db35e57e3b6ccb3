"""The scribe: what a run writes becomes log, progress and error events, whoever writes them down."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.events import Event, EventType
from shared.feed import Batch, Place
from shared.runs import Run
from worker.cluster import Chunk, Record
from worker.command import TRACE_FIELDS
from worker.scribe import Scribe, cause

AsRecords = Callable[[Sequence[str]], list[Record]]
TRACE_ROW = "2\t6f/f86a9c\tSAY (s2)\tSAY\ts2\tCOMPLETED\t0\t1\tnf-6f\t1\t2\t3\t1016\t49\t1\t-\t-\t/data/run"
TRACE_HEAD = "\t".join(TRACE_FIELDS)
BLOCK = """\
ERROR ~ Error executing process > 'BOOM (2)'

Caused by:
  Process `BOOM (2)` terminated with an error exit status (137)

Command executed:

  echo [7b/5e1db5] Submitted process; exit 137

Command error:
  oops

 -- Check '.nextflow.log' file for details""".splitlines()
NOTHING = Place(0, {})


class Writing:
    """One run written down: its lines go in, its events and batches are kept."""

    def __init__(self, run: Run, as_records: AsRecords) -> None:
        self._run = run
        self._as_records = as_records
        self.scribe = Scribe(run, NOTHING)
        self.batches: list[Batch] = []
        self.clock = 1000.0

    def take(self, lines: Sequence[str], after: float = 0.1) -> None:
        """A chunk of these lines comes that many seconds after the one before."""
        self.clock += after
        offset = int(self.scribe.place.get("offset", 0)) + sum(len(line) + 1 for line in lines)
        self._keep(self.scribe.take(Chunk(self._as_records(lines), {"offset": offset}, started=True), self.clock))

    def restart(self) -> None:
        """Another supervisor takes over from what was kept, which has been through JSON."""
        kept = self.batches[-1] if self.batches else None
        place = Place(kept.number, orjson.loads(orjson.dumps(kept.place))) if kept else NOTHING
        self.scribe = Scribe(self._run, place)

    def end(self, failure: str | None = None, *, from_outside: bool = False) -> None:
        """The log is over."""
        self.scribe.close()
        self._keep(self.scribe.last(failure, from_outside=from_outside))

    def _keep(self, batch: Batch | None) -> None:
        if batch is not None:
            orjson.dumps(batch.place)
            self.batches.append(batch)

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch.events]

    def data(self, kind: EventType) -> list[dict[str, Any]]:
        """The data of all events of a kind, as JSON gives it."""
        return [orjson.loads(event.body())["data"] for event in self.events if event.type is kind]

    @property
    def log(self) -> list[str]:
        return [line["message"] for data in self.data(EventType.LOG) for line in data["lines"]]

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(data["level"], data["message"]) for data in self.data(EventType.ERROR)]


@pytest.fixture
def writing(run: Run, as_records: AsRecords) -> Writing:
    return Writing(run, as_records)


def test_log_events_hold_fifty_lines_at_the_most(writing: Writing) -> None:
    """A large chunk becomes several log events; lines are numbered from 1 without holes and none is lost."""
    lines = [f"line {number}" for number in range(1, 131)]
    writing.take(lines)
    writing.end()
    data = writing.data(EventType.LOG)
    assert [event["count"] for event in data] == [50, 50, 30]
    assert [line["line"] for event in data for line in event["lines"]] == list(range(1, 131))
    assert writing.log == lines


def test_log_lines_say_where_they_come_from(writing: Writing, run: Run) -> None:
    """Each line names the run's job and the stream."""
    writing.take(["hello"])
    (event,) = writing.data(EventType.LOG)
    line = event["lines"][0]
    assert (line["pod"], line["container"], line["stream"]) == (run.job_name, "nextflow", "stdout")
    assert line["timestamp"] == "2026-01-31T12:00:00.000000Z"


def test_the_trace_is_not_in_the_log(writing: Writing) -> None:
    """Rows and head of the trace are read and not shown; what shared a line with a row is."""
    writing.take([TRACE_HEAD, "hello", TRACE_ROW, f"glued {TRACE_ROW.replace('6f/f86a9c', '6f/000001')}", ""])
    writing.end()
    assert writing.log == ["hello", "glued ", ""]
    assert writing.data(EventType.PROGRESS)[-1]["processes"][0]["succeeded"] == 2


def test_escapes_are_not_in_the_log(writing: Writing) -> None:
    """What a browser shows has no terminal escapes."""
    writing.take(["\x1b[31mred\x1b[0m\r"])
    assert writing.log == ["red"]


def test_an_error_block_is_one_event(writing: Writing) -> None:
    """An error is told once, whole, with its task and a hint; its lines are in the log as well."""
    writing.take(["before", *BLOCK[:4]])
    writing.take(BLOCK[4:])
    writing.take(["after"])
    writing.end(failure="failed")
    (error,) = writing.data(EventType.ERROR)
    assert error["message"].splitlines() == BLOCK
    assert (error["level"], error["source"], error["task"]) == ("error", "nextflow", "BOOM (2)")
    assert "memory" in error["hint"]
    assert writing.log == ["before", *BLOCK, "after"]
    assert writing.scribe.first_error == "Process `BOOM (2)` terminated with an error exit status (137)"


def test_a_trace_row_within_an_error_block_does_not_cut_it(writing: Writing) -> None:
    """Trace and console are two writers of one pipe: a row may come between the lines of a block."""
    writing.take([*BLOCK[:6], TRACE_ROW, *BLOCK[6:]])
    writing.end()
    assert [message.splitlines() for _, message in writing.errors] == [BLOCK]


def test_an_error_comes_after_the_lines_it_is_made_of(writing: Writing) -> None:
    """Who reads in order has seen a block's lines when its event comes."""
    writing.take([*BLOCK, "after"])
    kinds = [event.type for event in writing.events if event.type is not EventType.PROGRESS]
    assert kinds.index(EventType.ERROR) == 1
    first = writing.data(EventType.LOG)[0]
    assert [line["message"] for line in first["lines"]][: len(BLOCK) - 1] == BLOCK[:-1]


def test_warnings_are_told_with_what_belongs_to_them(writing: Writing) -> None:
    """A warning ends where the next line says something else; indented lines belong to it."""
    writing.take(["WARN: one", "WARN: two", "  and more", "OUT: hello", "WARN: three"])
    writing.end()
    assert writing.errors == [
        ("warning", "WARN: one"),
        ("warning", "WARN: two\n  and more"),
        ("warning", "WARN: three"),
    ]


def test_a_warning_at_the_end_of_what_is_said_is_told_soon(writing: Writing) -> None:
    """A block that nothing follows is told once it has been quiet for a moment, before the run ends."""
    writing.take(["WARN: careful"])
    assert writing.errors == []
    writing.take([], after=0.3)
    assert writing.errors == [("warning", "WARN: careful")]


def test_a_new_supervisor_does_not_cut_a_block(writing: Writing) -> None:
    """A supervisor that takes over in the middle of a block waits for the rest as the first one would have."""
    writing.take(BLOCK[:4])
    writing.restart()
    writing.take([])
    writing.take(BLOCK[4:])
    writing.end()
    assert [message.splitlines() for _, message in writing.errors] == [BLOCK]


def test_warnings_are_bounded(writing: Writing) -> None:
    """A pipeline that warns without end fills its log and not the list of errors; the last one told says so."""
    writing.take([f"WARN: {number}" for number in range(500)])
    writing.end()
    assert len(writing.errors) == 400
    assert "log only" in writing.errors[-1][1]
    assert len(writing.log) == 500


def test_a_failure_without_words_gets_an_error_event(writing: Writing) -> None:
    """A run that fails and says nothing of it is told with the last lines of its console, or else its verdict."""
    writing.take(["params n=3", "Unknown option: -x"])
    writing.end(failure="Nextflow ended with exit code 1.")
    assert writing.errors == [("error", "params n=3\nUnknown option: -x")]


def test_a_failure_in_silence_is_told_by_its_verdict(writing: Writing) -> None:
    """Where the console said nothing, the verdict itself is the error."""
    writing.end(failure="Nextflow was not found.")
    assert writing.errors == [("error", "Nextflow was not found.")]


def test_an_end_from_outside_is_told_by_its_reason_alone(writing: Writing) -> None:
    """What the pipeline happened to print just then did not go wrong."""
    writing.take(["line 1", "line 2"])
    for _ in range(2):
        writing.end(failure="The run's supervisor was killed.", from_outside=True)
        writing.restart()
    assert writing.errors == [("error", "The run's supervisor was killed.")]
    assert writing.data(EventType.ERROR)[0]["source"] == "service"


def test_what_a_newer_version_has_kept_is_read(run: Run) -> None:
    """It was rolled back while the run works: what is unknown is left out, and the run goes on."""
    kept: dict[str, Any] = {
        "memory": {"line": 7, "new": 1},
        "progress": {"percent": 50, "new": 1, "processes": {"A": {"running": 1, "new": 1}}},
    }
    scribe = Scribe(run, Place(3, {"scribe": kept}))
    assert scribe.progress.percent == 50
    batch = scribe.take(Chunk([Record("2026-01-31T12:00:00Z", "stdout", "hello")], {}, started=True), 0)
    assert batch is not None
    assert (batch.number, batch.place["scribe"]["memory"]["line"]) == (4, 8)


def test_success_needs_no_error(writing: Writing) -> None:
    """A run that ends well has no error event."""
    writing.take(["hello"])
    writing.end(failure=None)
    assert writing.errors == []


def test_progress_is_told_when_it_changes_and_not_too_often(writing: Writing) -> None:
    """Between two progress events lie at least 0.2 s, and what is told differs from what was told before."""
    for number in range(20):
        writing.take([f"[aa/{number:06x}] Submitted process > A ({number})"], after=0.05)
    told = writing.data(EventType.PROGRESS)
    assert 2 <= len(told) <= 6
    writing.take([], after=1)
    count = len(writing.data(EventType.PROGRESS))
    writing.take([], after=1)
    writing.take(["hello"], after=1)
    assert len(writing.data(EventType.PROGRESS)) == count
    assert writing.data(EventType.PROGRESS)[-1]["total"] == 20


def test_nothing_said_is_no_batch(writing: Writing) -> None:
    """A silent run costs no writes, but for the one that says that somebody has begun with it."""
    for _ in range(10):
        writing.take([], after=1)
    assert [batch.events for batch in writing.batches] == [[]]


def test_every_batch_knows_where_to_go_on(writing: Writing) -> None:
    """Batches are numbered without holes, and each holds the place behind its lines."""
    writing.take(["one"])
    writing.take(["two"])
    assert [batch.number for batch in writing.batches] == [1, 2]
    assert [batch.place["cluster"] for batch in writing.batches] == [{"offset": 4}, {"offset": 8}]


def test_passwords_in_urls_are_not_shown(writing: Writing) -> None:
    """Nextflow prints the URL of the pipeline, with its password; clients do not get to see that."""
    url = "https://me:hunter2@git.example/lab/flow"
    writing.take([f"Launching `{url}` [x] DSL2 - revision: 70bcc9243e", f"ERROR ~ Cannot find {url}"])
    writing.end(failure="failed")
    assert "hunter2" not in str([event.body() for event in writing.events])
    assert "hunter2" not in str(writing.scribe.first_error)


def test_real_failure(writing: Writing, sample: Callable[[str], list[str]]) -> None:
    """A real failed run gives a warning, an error with its whole block, and a log without trace rows."""
    lines = sample("k8s-job-fail+trace-stdout")
    for at in range(0, len(lines), 7):
        writing.take(lines[at : at + 7])
    writing.end(failure="failed")
    (warning, error) = writing.data(EventType.ERROR)
    assert (warning["level"], warning["message"]) == ("warning", "WARN: careful")
    assert (error["level"], error["task"]) == ("error", "BOOM (1)")
    start, end = lines.index("ERROR ~ Error executing process > 'BOOM (1)'"), 0
    end = next(number for number, line in enumerate(lines) if "Check '.nextflow.log'" in line)
    assert error["message"].splitlines() == [line.rstrip("\n") for line in lines[start : end + 1]]
    assert writing.log == [line for line in lines if "\t" not in line]
    assert writing.scribe.first_error == "Process `BOOM (1)` terminated with an error exit status (7)"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (BLOCK, "Process `BOOM (2)` terminated with an error exit status (137)"),
        (["ERROR ~ No such variable: x"], "No such variable: x"),
        (["[ERROR] SAY", "exit: 1"], "SAY"),
        (["", "Unknown option"], "Unknown option"),
        (["Caused by:"], "Caused by:"),
        ([], ""),
    ],
)
def test_the_cause_comes_first(block: list[str], words: str) -> None:
    """Of an error block, its cause is what a person needs first, else its first line."""
    assert cause(block) == words


def test_the_words_of_an_unexplained_end_stay_the_same_when_it_is_told_twice(writing: Writing) -> None:
    """Redis may go away between the last batch and the verdict; whoever tells the end again says the same."""
    writing.take(["params n=3", "one", "two", "Unknown option: -x"])
    before = writing.scribe.first_error
    writing.end(failure="failed")
    writing.restart()
    writing.end(failure="failed")
    assert writing.scribe.first_error == before
    assert len(writing.errors) == 1


lines_of_runs = st.sampled_from(
    ["hello", "", "  indented", "WARN: a", "WARN: b", "ERROR ~ x", *BLOCK, TRACE_ROW, TRACE_HEAD,
     "[7b/5e1db5] Submitted process > SAY (1)", "[7b/5e1db5] Cached process > SAY (1)"]
) | st.text(max_size=5)  # fmt: skip


def told(writing: Writing) -> list[tuple[str, Any]]:
    """All but progress, whose moments depend on the clock."""
    return [
        (event.type, orjson.loads(event.body())["data"])
        for event in writing.events
        if event.type is not EventType.PROGRESS
    ]


@settings(max_examples=60)
@given(
    chunks=st.lists(st.lists(lines_of_runs, min_size=1, max_size=60), max_size=8),
    data=st.data(),
    failure=st.none() | st.just("failed"),
)
def test_a_run_that_changes_hands_tells_the_same(
    run: Run, as_records: AsRecords, chunks: list[list[str]], data: st.DataObject, failure: str | None
) -> None:
    """Taken over by another supervisor after any batch, a run has the same events, tasks and counts."""
    cuts = data.draw(st.sets(st.integers(0, len(chunks))))
    alone, handed = Writing(run, as_records), Writing(run, as_records)
    for number, chunk in enumerate(chunks):
        if number in cuts:
            handed.restart()
        alone.take(chunk)
        handed.take(chunk)
    if len(chunks) in cuts:
        handed.restart()
    alone.end(failure)
    handed.end(failure)
    assert told(handed) == told(alone)
    assert handed.scribe.progress.data() == alone.scribe.progress.data()
    assert tasks(handed.batches) == tasks(alone.batches)


def tasks(batches: Iterable[Batch]) -> list[tuple[int, Any]]:
    return [task for batch in batches for task in batch.tasks]


@settings(max_examples=60)
@given(st.lists(lines_of_runs, max_size=120), st.data())
def test_how_lines_are_cut_into_chunks_does_not_matter(
    run: Run, as_records: AsRecords, lines: list[str], data: st.DataObject
) -> None:
    """The same lines in other chunks give the same log lines and the same errors, and no event over 50 lines."""
    cuts = sorted({0, len(lines), *data.draw(st.sets(st.integers(0, len(lines))))})
    whole, parts = Writing(run, as_records), Writing(run, as_records)
    whole.take(lines)
    for start, end in pairwise(cuts):
        parts.take(lines[start:end])
    for writing in (whole, parts):
        writing.end()
        assert all(event.lines <= 50 for event in writing.events)
    assert (parts.log, parts.errors) == (whole.log, whole.errors)
