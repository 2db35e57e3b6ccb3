"""The verdict on a run: told from what was asked of it and how it ended."""

from itertools import product

import pytest

from shared.feed import Place
from shared.runs import LEGAL_MOVES, Run, RunStatus
from worker.cluster import Chunk, Outcome, Record
from worker.runner import judge
from worker.scribe import Scribe

OUTCOMES = [
    Outcome(0),
    Outcome(0, cancelled=True),
    Outcome(1),
    Outcome(1, cancelled=True),
    Outcome(137, cancelled=True, killed=True),
    Outcome(143),
    Outcome(255),
    Outcome(None, reason="The machine stopped."),
    Outcome(None, cancelled=True, reason="Cancelled before Nextflow started."),
]
AT_WORK = [RunStatus.STARTING, RunStatus.RUNNING, RunStatus.CANCELLING, RunStatus.UNKNOWN]


def scribe_of(run: Run, *lines: str) -> Scribe:
    scribe = Scribe(run, Place(0, {}))
    scribe.take(Chunk([Record("2026-01-31T12:00:00Z", "stdout", line) for line in lines], {}, started=True), 0)
    scribe.close()
    return scribe


@pytest.mark.parametrize(("status", "outcome"), list(product(AT_WORK, OUTCOMES)))
def test_every_verdict_can_be_given(run: Run, status: RunStatus, outcome: Outcome) -> None:
    """Wherever a run stands and however it ended, its verdict is final, legal from there, and has words."""
    verdict, message = judge(status, outcome, scribe_of(run))
    # The step that `Store.end` takes for a run where nobody wrote it down.
    between = {RunStatus.SUCCEEDED: RunStatus.RUNNING, RunStatus.CANCELLED: RunStatus.CANCELLING}
    reached = {status, between.get(verdict, status)}
    assert verdict.final
    assert any(verdict in LEGAL_MOVES[before] for before in reached)
    assert message


@pytest.mark.parametrize(
    ("status", "outcome", "verdict"),
    [
        (RunStatus.RUNNING, Outcome(0), RunStatus.SUCCEEDED),
        (RunStatus.CANCELLING, Outcome(0), RunStatus.SUCCEEDED),
        (RunStatus.RUNNING, Outcome(1), RunStatus.FAILED),
        (RunStatus.CANCELLING, Outcome(1), RunStatus.CANCELLED),
        (RunStatus.CANCELLING, Outcome(137, killed=True), RunStatus.CANCELLED),
        (RunStatus.RUNNING, Outcome(143), RunStatus.FAILED),
        (RunStatus.RUNNING, Outcome(None), RunStatus.FAILED),
    ],
)
def test_cancelled_is_told_by_our_wish(run: Run, status: RunStatus, outcome: Outcome, verdict: RunStatus) -> None:
    """Nextflow ends a cancelled run with 1 as it ends a failed one, and may succeed before it heard of the cancel."""
    assert judge(status, outcome, scribe_of(run))[0] is verdict


@pytest.mark.parametrize(
    ("outcome", "lines", "message"),
    [
        (Outcome(1), ["ERROR ~ No such variable: x"], "No such variable: x"),
        (Outcome(1), ["Unknown option: -x"], "Unknown option: -x"),
        (Outcome(1), [], "Nextflow ended with exit code 1 and said nothing."),
        (Outcome(None, reason="The machine stopped."), ["hello"], "The machine stopped."),
        (Outcome(0), [], "It had no tasks."),
    ],
)
def test_the_message_says_why(run: Run, outcome: Outcome, lines: list[str], message: str) -> None:
    """The words of the verdict are the run's own where it said any."""
    assert judge(RunStatus.RUNNING, outcome, scribe_of(run, *lines))[1] == message


@pytest.mark.parametrize(("code", "name"), [(137, "SIGKILL"), (143, "SIGTERM"), (130, "SIGINT"), (139, "SIGSEGV")])
def test_a_signal_is_named(run: Run, code: int, name: str) -> None:
    """A run that a signal ended says which; what it happened to print just then is no reason."""
    message = judge(RunStatus.RUNNING, Outcome(code), scribe_of(run, "bye"))[1]
    assert name in message
    assert "bye" not in message


def test_success_counts_its_tasks(run: Run) -> None:
    """The message of a success tells tasks, cached ones and ignored failures."""
    scribe = scribe_of(
        run, "[-        ] A | 3 of 3, cached: 1 ✔", "[-        ] B | 1 of 1, ignored: 1", "[-        ] C | 1 of 1 ✔"
    )
    said = judge(RunStatus.RUNNING, Outcome(0), scribe)[1]
    assert said == "3 tasks succeeded, 1 came from the cache, 1 failed and was ignored."


@pytest.mark.parametrize("outcome", [item for item in OUTCOMES if item.code != 0])
def test_a_cancelled_run_says_so(run: Run, outcome: Outcome) -> None:
    """Whatever the code, the words for a cancelled run do not speak of failure."""
    verdict, message = judge(RunStatus.CANCELLING, outcome, scribe_of(run, "WARN: Killing running tasks (2)"))
    assert verdict is RunStatus.CANCELLED
    assert "exit code" not in message
