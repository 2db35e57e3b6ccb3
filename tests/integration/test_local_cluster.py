"""Runs of this machine where it is slow; what they do else is tried by `tests/system` and `tests/faults`."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from shared.errors import CannotStart, ClusterAway
from shared.runs import Run, RunStatus
from shared.settings import Settings
from worker import local_cluster
from worker.cluster import Chunk
from worker.local_cluster import LocalCluster

PLACE = {"offset": 0}
WithNextflow = Callable[[str], LocalCluster]


@pytest.fixture
def slow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """A machine on which what shall own the run does not come."""
    begun: list[subprocess.Popen[bytes]] = []

    def launch(directory: Path) -> subprocess.Popen[bytes]:
        (directory / "shim.err").write_text("It is so slow here.")
        begun.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return begun[-1]

    cluster = LocalCluster(replace(settings, nextflow_bin=sys.executable))
    monkeypatch.setattr(cluster, "_launch_shim", launch)
    yield cluster
    for process in begun:
        process.kill()
        process.communicate()


def shim_that_sleeps(seconds: int) -> Callable[[Path], subprocess.Popen[bytes]]:
    """What launches a shim that sleeps just before it says that it has begun."""
    late = (
        "import sys, time; from worker import shim; say = shim.Shim._say_started;"
        f"shim.Shim._say_started = lambda self: (time.sleep({seconds}), say(self)); shim.main()"
    )

    def launch(directory: Path) -> subprocess.Popen[bytes]:
        (directory / "shim.err").touch()
        return subprocess.Popen([sys.executable, "-c", late, str(directory)])

    return launch


@pytest.fixture
def with_nextflow(settings: Settings, tmp_path: Path) -> WithNextflow:
    """A machine whose Nextflow is a shell script."""

    def make(script: str) -> LocalCluster:
        nextflow = tmp_path / "nextflow"
        nextflow.write_text(f"#!/bin/sh\n{script}\n")
        nextflow.chmod(0o755)
        return LocalCluster(replace(settings, nextflow_bin=str(nextflow)))

    return make


def test_a_worker_that_waits_for_the_start_can_hold_on_to_the_run(
    slow: LocalCluster, settings: Settings, make_run: Callable[..., Run]
) -> None:
    """Empty chunks come meanwhile, in which it renews its lease; and who then leaves has ended nothing."""
    run = make_run()
    assert list(islice(slow.follow(run, PLACE), 5)) == [Chunk([], PLACE, started=False)] * 5
    assert not (settings.data_dir / "runs" / run.run_id / "cancel").exists()


def test_a_start_that_never_comes_is_called_off(
    slow: LocalCluster,
    settings: Settings,
    make_run: Callable[..., Run],
    eventually: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Word is left with the reason, so that what comes later still does not begin, and nobody calls it cancelled."""
    monkeypatch.setattr(local_cluster, "_START_SECONDS", 0.1)
    run = make_run()
    with pytest.raises(CannotStart, match=r"could not be started.*so slow here"):
        list(slow.follow(run, PLACE))
    directory = settings.data_dir / "runs" / run.run_id
    subprocess.run([sys.executable, "-m", "worker.shim", str(directory)], check=True, timeout=60)
    eventually((directory / "exit.json").exists)
    outcome = slow.outcome(run)
    assert (outcome.code, outcome.cancelled) == (None, False)
    assert "so slow here" in str(outcome.reason)


def test_a_start_that_cannot_be_called_off_is_waited_for(
    slow: LocalCluster, settings: Settings, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no word can be left, as on a full disk, it may still come: that is told once, and the lease is kept."""
    monkeypatch.setattr(local_cluster, "_START_SECONDS", 0.1)
    run = make_run()
    chunks = slow.follow(run, PLACE)
    next(chunks)
    in_the_way = settings.data_dir / "runs" / run.run_id / "forbidden"
    in_the_way.mkdir()
    (in_the_way / "something").touch()
    time.sleep(0.2)
    first, *others = islice(chunks, 5)
    [notice] = first.notices
    assert f"{in_the_way.parent} cannot be written" in notice.message
    assert others == [Chunk([], PLACE, started=False)] * 4
    (in_the_way / "something").unlink()
    in_the_way.rmdir()
    with pytest.raises(CannotStart, match="so slow here"):
        list(chunks)


def test_what_another_worker_cannot_start_does_not_start_late(
    settings: Settings,
    make_run: Callable[..., Run],
    tmp_path: Path,
    eventually: Callable[..., Any],
    with_nextflow: WithNextflow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one's shim is still on its way when the second finds no Nextflow, and says so of the run."""
    starts = tmp_path / "starts"
    cluster = with_nextflow(f"echo start >> {starts}")
    monkeypatch.setattr(cluster, "_launch_shim", shim_that_sleeps(1))
    run = make_run()
    next(cluster.follow(run, PLACE))
    other = LocalCluster(replace(settings, nextflow_bin="/nowhere/nextflow"))
    with pytest.raises(CannotStart, match="not found"):
        list(other.follow(run, PLACE))
    eventually((settings.data_dir / "runs" / run.run_id / "exit.json").exists)
    assert not starts.exists()
    assert "not found" in str(other.outcome(run).reason)


def test_what_is_called_off_as_it_begins_ends(
    settings: Settings, make_run: Callable[..., Run], eventually: Callable[..., Any], with_nextflow: WithNextflow
) -> None:
    """The word comes when Nextflow has just started: it is ended, with the reason, and nobody calls it cancelled."""
    cluster = with_nextflow("exec sleep 300")
    run = make_run()
    chunks = cluster.follow(run, {})
    eventually(lambda: next(chunks).started)
    (settings.data_dir / "runs" / run.run_id / "forbidden").write_text("It came too late.")
    list(chunks)
    outcome = cluster.outcome(run)
    assert (outcome.cancelled, outcome.reason) == (False, "It came too late.")


@pytest.mark.parametrize("has_fifos", [True, False])
def test_a_log_is_followed_where_there_are_no_fifos(
    with_nextflow: WithNextflow,
    make_run: Callable[..., Run],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    has_fifos: bool,
) -> None:
    """Its reader looks again and again then. None is left either way: who reads all files there would wait for it."""
    if not has_fifos:
        monkeypatch.setattr("os.mkfifo", no_fifo)
    cluster, run = with_nextflow("echo one; sleep 0.3; echo two"), make_run()
    said = [record.text for chunk in cluster.follow(run, {}) for record in chunk.records]
    assert said == ["one", "two"]
    assert cluster.outcome(run).code == 0
    assert not any(path.is_fifo() for path in (settings.data_dir / "runs" / run.run_id).iterdir())


def no_fifo(*_: object, **__: object) -> None:
    """As some file systems have it."""
    raise PermissionError


def test_a_run_whose_files_are_gone_does_not_begin_again(
    settings: Settings, make_run: Callable[..., Run], tmp_path: Path, with_nextflow: WithNextflow
) -> None:
    """A machine that lost its power may have kept less on its disk than Redis has: the run is over, and says so."""
    starts = tmp_path / "starts"
    cluster = with_nextflow(f"echo start >> {starts}\necho hello")
    run = make_run()
    [*_, last] = cluster.follow(run, {})
    shutil.rmtree(settings.data_dir / "runs" / run.run_id)
    for known, place in ((run, last.place), (replace(run, status=RunStatus.RUNNING), {})):
        assert [record for chunk in cluster.follow(known, place) for record in chunk.records] == []
        outcome = cluster.outcome(known)
        assert (outcome.code, "files are gone" in str(outcome.reason)) == (None, True)
        shutil.rmtree(settings.data_dir / "runs" / run.run_id)
    assert starts.read_text().split() == ["start"]


def test_a_shim_that_sleeps_as_it_begins_starts_nothing_late(
    settings: Settings,
    make_run: Callable[..., Run],
    tmp_path: Path,
    with_nextflow: WithNextflow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stopped just before it says that it has begun, the run is called off meanwhile, and it wakes up."""
    monkeypatch.setattr(local_cluster, "_START_SECONDS", 0.5)
    starts = tmp_path / "starts"
    cluster = with_nextflow(f"echo start >> {starts}")
    monkeypatch.setattr(cluster, "_launch_shim", shim_that_sleeps(2))
    run = make_run()
    with pytest.raises(CannotStart):
        list(cluster.follow(run, {}))
    exit_file = settings.data_dir / "runs" / run.run_id / "exit.json"
    deadline = time.monotonic() + 30
    while not exit_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "could not be started" in str(cluster.outcome(run).reason)
    assert not starts.exists()


def test_a_run_whose_directory_is_away_goes_on(
    settings: Settings,
    make_run: Callable[..., Run],
    eventually: Callable[..., Any],
    tmp_path: Path,
    with_nextflow: WithNextflow,
) -> None:
    """While it works nobody ends it for that; when the directory is back, it is followed from where it was."""
    cluster = with_nextflow("echo one\nsleep 3\necho two")
    run = make_run()
    chunks = cluster.follow(run, {})
    last = eventually(lambda: next((chunk for chunk in chunks if chunk.records), None))
    chunks.close()  # type: ignore[attr-defined] # it is a generator
    directory = settings.data_dir / "runs" / run.run_id
    directory.rename(tmp_path / "away")
    with pytest.raises(ClusterAway):
        list(cluster.follow(run, last.place))
    (tmp_path / "away").rename(directory)
    assert [record.text for chunk in cluster.follow(run, last.place) for record in chunk.records] == ["two"]
    assert cluster.outcome(run).code == 0
