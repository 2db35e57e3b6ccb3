"""The run: its moves, its record, and what clients see of it."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import IllegalMove
from shared.runs import LEGAL_MOVES, Run, RunStatus, new_run_id, new_session_id

Q, S, R, C, U = RunStatus.QUEUED, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.CANCELLING, RunStatus.UNKNOWN
GOOD, BAD, GONE = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED
FINAL = {GOOD, BAD, GONE}
LEGAL = {
    (Q, S), (Q, GONE),
    (S, R), (S, C), (S, BAD), (S, U),
    (R, C), (R, GOOD), (R, BAD), (R, U),
    (C, GOOD), (C, BAD), (C, GONE),
    (U, R), (U, C), (U, GOOD), (U, BAD), (U, GONE),
}  # fmt: skip
AT = datetime(2026, 1, 31, 23, 59, 59, 123000, tzinfo=UTC)

times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
maybe_text = st.none() | st.text()
runs = st.builds(
    Run,
    run_id=st.text(min_size=1),
    pipeline=st.text(min_size=1),
    session_id=st.uuids().map(str),
    queued_at=times,
    status=st.sampled_from(RunStatus),
    revision=maybe_text,
    profile=maybe_text,
    parameters=st.dictionaries(st.text(), json_values, max_size=4),
    workdir=maybe_text,
    config=maybe_text,
    resumes=st.booleans(),
    triggered_by=maybe_text,
    started_at=st.none() | times,
    finished_at=st.none() | times,
    message=maybe_text,
    exit_code=st.none() | st.integers(0, 255),
)


def run_of(status: RunStatus) -> Run:
    return Run(run_id="run-1", pipeline="hello", session_id="s", queued_at=AT, status=status)


@pytest.mark.parametrize(("before", "after"), list(product(RunStatus, RunStatus)))
def test_only_legal_moves_are_made(before: RunStatus, after: RunStatus) -> None:
    """Of all pairs of statuses, exactly those of the design are moves; all others raise and name both."""
    run = run_of(before)
    if (before, after) in LEGAL:
        assert run.moved(after, AT).status is after
        return
    with pytest.raises(IllegalMove, match=f"{before}.*{after}"):
        run.moved(after, AT)


def test_final_statuses_never_change() -> None:
    """`succeeded`, `failed` and `cancelled` are final, and nothing else is."""
    assert {status for status in RunStatus if status.final} == FINAL
    assert set(LEGAL_MOVES) == set(RunStatus)


@pytest.mark.parametrize("status", [status for status in RunStatus if not status.final])
def test_every_run_can_be_ended(status: RunStatus) -> None:
    """From every status that is not final, a final one can be reached."""
    reached, new = set(), {status}
    while new:
        reached |= new
        new = {after for before in new for after in LEGAL_MOVES[before]} - reached
    assert reached & FINAL


def test_a_move_sets_the_times_of_start_and_end() -> None:
    """A run starts when it becomes `starting` and ends when it becomes final, not before."""
    later = AT + timedelta(seconds=61.5)
    started = run_of(Q).moved(S, AT)
    assert (started.started_at, started.finished_at, started.duration_seconds) == (AT, None, None)
    ended = started.moved(R, AT).moved(GOOD, later, message="done", exit_code=0)
    assert (ended.started_at, ended.finished_at, ended.duration_seconds) == (AT, later, 61.5)
    assert (ended.message, ended.exit_code) == ("done", 0)


def test_a_move_keeps_the_message_unless_it_brings_one() -> None:
    """What was said of a run stays until something newer is said."""
    run = run_of(R).moved(C, AT, message="stopping")
    assert run.moved(GONE, AT).message == "stopping"
    assert run.moved(GONE, AT, message="stopped").message == "stopped"


@given(runs)
def test_a_record_reads_back_as_the_same_run(run: Run) -> None:
    """Whatever a run holds, its record goes through JSON and comes back equal."""
    assert Run.from_record(json.loads(json.dumps(run.to_record()))) == run


@given(runs)
def test_clients_see_the_shape_of_the_contract(run: Run) -> None:
    """`RunInfo` is JSON and has every field that was promised, whatever the run holds."""
    info = json.loads(json.dumps(run.info()))
    promised = "run_id status started_at finished_at job_name message pipeline revision parameters triggered_by"
    assert set(info) >= {*promised.split(), "queued_at", "exit_code", "session_id"}
    assert "config" not in info


def test_clients_never_see_secrets() -> None:
    """Secret-looking parameters and the userinfo of URLs are hidden from clients and kept in the record."""
    run = Run(
        run_id="run-1",
        pipeline="https://me:hunter2@git.example/lab/flow.git",
        session_id="s",
        queued_at=AT,
        parameters={"api_key": "hunter2", "db": {"url": "postgres://me:hunter2@db/x"}, "reads": "*.fq"},
        config="aws.secretKey = 'hunter2'",
    )
    assert "hunter2" not in json.dumps(run.info())
    assert run.info()["parameters"]["reads"] == "*.fq"
    assert Run.from_record(run.to_record()).parameters == run.parameters


def test_run_ids_are_legal_names_everywhere() -> None:
    """An id is a legal `-name` of Nextflow and a Kubernetes name, also as a job, and sorts by time."""
    nextflow = re.compile(r"(?i)^[a-z](?:[a-z\d]|[-_](?=[a-z\d])){0,79}$")
    early, late = new_run_id(AT), new_run_id(AT + timedelta(seconds=1))
    assert early < late
    for name in (early, f"nextflow-{early}"):
        assert nextflow.match(name)
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
        assert len(name) <= 63


def test_ids_do_not_repeat() -> None:
    """Ids made in the same second differ."""
    assert len({new_run_id(AT) for _ in range(1000)}) == 1000
    assert len({new_session_id() for _ in range(1000)}) == 1000


def test_times_of_other_zones_are_shown_in_utc() -> None:
    """A move at a time of another zone is told in UTC."""
    there = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert run_of(Q).moved(S, there).info()["started_at"] == "2026-01-31T23:59:59.123Z"
