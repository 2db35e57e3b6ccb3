"""The console reader: every shape that Nextflow 22 to 26 prints, and any other text."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.redaction import without_url_secrets
from worker import console
from worker.command import TRACE_FIELDS
from worker.console import (
    BlockStart,
    Cached,
    Executor,
    Meaning,
    Note,
    Row,
    Submitted,
    Text,
    Trace,
    TraceHead,
    plain,
    process_of,
    tag_of,
)

LINK = "\x1b]8;;https://host/x\x07{}\x1b]8;;\x07"
ROW = "2\t6f/f86a9c\tSAY (s2)\tSAY\ts2\tCOMPLETED\t0\t1\tnf-6f\t1\t2\t3\t1016\t4931584\t1\t-\t-\t/data/run"


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("[7b/5e1db5] Submitted process > SAY (s2)", Submitted("7b/5e1db5", "SAY (s2)", again=False)),
        ("[82/840377] Re-submitted process > BOOM (2)", Submitted("82/840377", "BOOM (2)", again=True)),
        ("[7b/5e1db5] Submitted process > NF:RNA:STAR (a:b (c) d)",
         Submitted("7b/5e1db5", "NF:RNA:STAR (a:b (c) d)", again=False)),
        ("[7b/5e1db5] Submitted process > SAY (žluťoučký 🐎 ))",
         Submitted("7b/5e1db5", "SAY (žluťoučký 🐎 ))", again=False)),
        ("[7b/5e1db5] Cached process > SAY (s2)", Cached("7b/5e1db5", "SAY (s2)")),
        ("[skipping] Stored process > NAME", Cached(None, "NAME")),
        ("[ea/9ed7e1] NOTE: Process `BOOM (2)` terminated with an error exit status (7) -- Execution is retried (1)",
         Note("ea/9ed7e1", "Process `BOOM (2)` terminated with an error exit status (7)", retried=True)),
        ("[14/4e3335] NOTE: Process `X (1)` terminated with an error exit status (3) -- Error is ignored",
         Note("14/4e3335", "Process `X (1)` terminated with an error exit status (3)", retried=False)),
        ("[14/4e3335] NOTE: Something else", Note("14/4e3335", "Something else", retried=False)),
        ("WARN: careful", BlockStart("warning", "careful")),
        ("WARN: Killing running tasks (2)", BlockStart("warning", "Killing running tasks (2)")),
        ("ERROR ~ Error executing process > 'BOOM (2)'",
         BlockStart("error", "Error executing process > 'BOOM (2)'")),
        ("executor >  local (6)", Executor("local (6)")),
        ("executor >  k8s [fusion enabled] (3)", Executor("k8s [fusion enabled] (3)")),
        ("executor >  local (1), k8s (3)", Executor("local (1), k8s (3)")),
    ],
)  # fmt: skip
def test_plain_and_ansi_lines(line: str, meaning: Meaning) -> None:
    """Each line of the console says what it says, in every version."""
    assert console.read(plain(line)) == meaning


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("[ab/123456] process > FOO (1) [100%] 3 of 3, cached: 1, failed: 1, retries: 1 ✔",
         Row("FOO", 3, 3, {"cached": 1, "failed": 1, "retries": 1})),
        ("[ab/123456] process > FOO (1) [ 33%] 1 of 3", Row("FOO", 1, 3, {})),
        ("[f7/979e0b] SAY (s3) | 3 of 3 ✔", Row("SAY", 3, 3, {})),
        ("[f7/979e0b] SAY (s3) [100%] 3 of 3 ✘", Row("SAY", 3, 3, {})),
        ("[f7/979e0b] A:B (x (y)) | 1 of 2, ignored: 1, stored: 1", Row("A:B", 1, 2, {"ignored": 1, "stored": 1})),
        ("[-        ] SAY  | 0 of 3", Row("SAY", 0, 3, {})),
        ("[-        ] BOOM     -", Row("BOOM", 0, 0, {})),
        ("[-        ] process > BOOM -", Row("BOOM", 0, 0, {})),
        (f"[{LINK.format('f7/979e0b')}] SAY (s3) | 3 of 3 ✔", Row("SAY", 3, 3, {})),
        ("\x1b[1;32m[f7/979e0b]\x1b[0m SAY (s3) | 3 of 3 ✔\x1b[K", Row("SAY", 3, 3, {})),
    ],
)  # fmt: skip
def test_rows_of_the_ansi_console(line: str, row: Row) -> None:
    """A drawn row tells a process and its counts, with and without colours, hyperlinks and `process >`."""
    assert console.read(plain(line)) == row


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("[PROCESS ab/123456] A:SAY (s1)", Submitted("ab/123456", "A:SAY (s1)", again=False)),
        ("[WARN] careful", BlockStart("warning", "careful")),
        ("[ERROR] SAY", BlockStart("error", "SAY")),
        ("[PIPELINE] hello 1.0 | profile=test", Text()),
        ("[WORKDIR] /data/work", Text()),
        ("[SUCCESS] completed=3 failed=0 cached=0", Text()),
    ],
)
def test_lines_of_the_agent_console(line: str, meaning: Meaning) -> None:
    """The agent's console of 26.04 names tasks, warnings and errors in its own way."""
    assert console.read(line) == meaning


@pytest.mark.parametrize(
    "line",
    [
        "",
        "N E X T F L O W  ~  version 24.10.0",
        "Launching `hello.nf` [t-fail-1] DSL2 - revision: 70bcc9243e",
        "Plus 4 more processes waiting for tasks…",
        "[ab/123456] NFC…_SALMON:FQ | 1 of 2",
        "Execution cancelled -- Finishing pending tasks before exit",
        "  [7b/5e1db5] Submitted process > SAY (s2)",
        "say: [7b/5e1db5] Submitted process > SAY (s2)",
        "[7B/5E1DB5] Submitted process > SAY",
        "ERROR: not Nextflow's",
        "WARNING: not Nextflow's",
        "1\tnot/ahash\trow",
        ROW.rpartition("\t")[0],
        f"{ROW}\tone too many",
    ],
)
def test_other_lines_mean_nothing(line: str) -> None:
    """What only resembles Nextflow's words, or stands within a line, is the pipeline's own."""
    assert console.read(line) == Text()


def test_a_trace_row_is_read_by_name() -> None:
    """A row of the trace gives its fields, and what another writer had put before it on the line."""
    said = console.read(ROW)
    assert isinstance(said, Trace)
    assert (said.before, said.fields["name"], said.fields["status"]) == ("", "SAY (s2)", "COMPLETED")
    glued = console.read(f"OUT: hello {ROW}")
    assert isinstance(glued, Trace)
    assert (glued.before, glued.fields) == ("OUT: hello ", said.fields)


def test_the_head_of_the_trace_is_known() -> None:
    """The trace's first line is no line of the log."""
    assert console.read("\t".join(TRACE_FIELDS)) == TraceHead()


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        (f"[{LINK.format('f7/979e0b')}] x", "[f7/979e0b] x"),
        ("\x1b]8;;https://host/x\x1b\\f7\x1b]8;;\x1b\\", "f7"),
        ("\x1b[2K\x1b[?25lx", "x"),
        ("line\r", "line"),
        ("no \\x1b here [31m", "no \\x1b here [31m"),
    ],
)
def test_escapes_are_removed(line: str, clean: str) -> None:
    """Colours, cursor moves and hyperlinks go, with either end of a hyperlink, and the text stays."""
    assert plain(line) == clean


@pytest.mark.parametrize(
    ("name", "process", "tag"),
    [
        ("ALIGN", "ALIGN", None),
        ("ALIGN (1)", "ALIGN", "1"),
        ("A:B:ALIGN (s1)", "A:B:ALIGN", "s1"),
        ("ALIGN (sample 1 (b))", "ALIGN", "sample 1 (b)"),
        ("ALIGN (a) (b)", "ALIGN", "a) (b"),
        ("ALIGN ())", "ALIGN", ")"),
        ("ALIGN (žluť: 🐎)", "ALIGN", "žluť: 🐎"),
        ("ALIGN ()", "ALIGN", ""),
    ],
)
def test_a_task_s_name_is_its_process_and_its_tag(name: str, process: str, tag: str | None) -> None:
    """A process has no spaces in its name, so the tag begins at the first parenthesis after one."""
    assert (process_of(name), tag_of(name)) == (process, tag)


pieces = st.sampled_from(
    ["[", "]", "7b/5e1db5", "[7b/5e1db5] ", "Submitted process > ", "NOTE: ", " -- ", "ERROR ~ ", "WARN: ", "\t", "-",
     "executor >  ", " | ", " of ", "9", "(", ")", "\x1b[", "\x1b]8;;", "\x07", "✔", ROW, "[100%] ", ", cached: ", "٣"]
)  # fmt: skip


@given(st.text() | st.lists(pieces | st.text(max_size=3), max_size=12).map("".join))
def test_any_text_is_read(line: str) -> None:
    """No text makes the reader raise, also not text made of the console's own words."""
    assert console.read(plain(line)) is not None


@given(st.text() | st.lists(pieces | st.text(max_size=3), max_size=12).map("".join))
def test_a_plain_line_means_nothing_to_anybody(line: str) -> None:
    """It is as it is on a terminal, says nothing of a task or of trouble, and has no URL with a secret."""
    if console.is_plain(line):
        assert plain(line) == line
        assert console.read(line) == Text()
        assert without_url_secrets(line) == line


def test_most_lines_of_a_pipeline_are_plain() -> None:
    """Others begin as Nextflow's own do, draw, or have a URL or columns."""
    assert all(map(console.is_plain, ["17 of 40 reads", " ", "žluťoučký 🐎", "done: [7b/5e1db5]"]))
    others = [
        "",
        "[7b/5e1db5] Submitted",
        "ERROR ~ x",
        "WARN: x",
        "executor >  local (1)",
        "a\tb",
        "a\x1b[0m",
        "s3://a",
        "a\r",
    ]
    assert not any(map(console.is_plain, others))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    [
        "1" * 200_000 + "\t",
        "[-] a" + " " * 200_000 + "x",
        "[" + "-" * 200_000,
        "[ab/123456] NOTE: " + " -- " * 50_000,
        "executor >  " + "(1" * 100_000,
        "\x1b]" * 100_000,
        "ERROR ~ " + "x" * 200_000,
    ],
    ids=["digits", "spaces", "dashes", "note", "executors", "links", "error"],
)
def test_long_lines_are_read_in_time(line: str) -> None:
    """A pipeline may print lines of any length, and none holds up the log of its run."""
    assert console.read(plain(line)) is not None


@pytest.mark.parametrize("digits", [20, 5000])
def test_imitated_counts_do_not_raise(digits: int) -> None:
    """A pipeline that prints a row with absurd numbers does not break the reader."""
    number = "9" * digits
    assert console.read(f"[-        ] X | {number} of {number}, cached: {number}") is not None


@pytest.mark.parametrize(
    "name", ["ansi-piped", "plain+trace-stdout", "plain-fail-retry", "k8s-job-fail+trace-stdout", "plain-resume-cached"]
)
def test_no_line_of_real_consoles_is_misread(sample: Callable[[str], list[str]], name: str) -> None:
    """Every bracketed or tabbed line of a real console has a meaning."""
    lines = [line for line in sample(name) if line.startswith("[") or "\t" in line]
    assert lines
    assert [line for line in lines if isinstance(console.read(plain(line)), Text)] == []


@pytest.mark.parametrize("filler", [" ", "1", "(", "[", "\t", "1\t", "a ", "`"])
@pytest.mark.parametrize("head", ["", "[ab/123456] x", "ERROR ~ ", "WARN: ", "[-        ] P ", "executor >  "])
def test_a_huge_line_is_read_at_once(head: str, filler: str) -> None:
    """No line, however long and strange, holds up its run: a quadratic pattern would take minutes here."""
    assert console.read(head + filler * 250_000 + "y") is not None
