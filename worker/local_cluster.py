"""Executes runs on this machine: each as a child of a shim of its own, which outlives the worker."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared import lifetime, times
from shared.errors import CannotStart, ClusterAway
from shared.places import RunPlaces, run_places
from shared.runs import Run, RunStatus
from shared.settings import Settings, without_secrets
from worker import command
from worker.cluster import Chunk, Notice, Outcome, Record

READ_BYTES = 524_288
_LONGEST_LINE_PARTS = 16
_PULSE_SECONDS = 0.2
# Lines that follow one another closely share a chunk, and so an event; the first of them never waits.
_GATHER_SECONDS = 0.02
_START_SECONDS = 15.0
_SHIM_CHECK_SECONDS = 1.0
_SHIM_GONE = "The supervisor of the run was killed, or the machine stopped; resume the run to go on."
_FILES_GONE = "The run had begun, but its files are gone: the machine stopped, or they were removed. Start it anew."


class LocalCluster:
    """Runs Nextflow on this machine. Two processes that use it on one data directory agree by its files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def follow(self, run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        """See `Cluster.follow`; `place` is `{"offset": bytes of the log that are read}`."""
        yield from self._start(run, place)
        places = self._places(run)
        with _Tail(places.directory, int(place.get("offset", 0))) as tail:
            checked_at = time.monotonic()
            while True:
                ended = (places.directory / "exit.json").exists()
                looked_at = time.monotonic()
                records = tail.read()
                yield Chunk(records, {"offset": tail.offset}, started=True)
                if records:
                    left = looked_at + _GATHER_SECONDS - time.monotonic()
                    time.sleep(0 if tail.more else max(0, left))
                elif ended:
                    yield Chunk(tail.read(last=True), {"offset": tail.offset}, started=True)
                    return
                else:
                    tail.wait(_PULSE_SECONDS)
                if time.monotonic() - checked_at >= _SHIM_CHECK_SECONDS:
                    checked_at = time.monotonic()
                    _bury_if_dead(run, places)

    def outcome(self, run: Run) -> Outcome:
        """What the shim said of the end; a child that a signal ended has 128 and its number as code."""
        said = json.loads((self._places(run).directory / "exit.json").read_bytes())
        code = said["code"]
        return Outcome(
            code=128 - code if code is not None and code < 0 else code,
            cancelled=said.get("cancelled", False),
            killed=said.get("killed", False),
            reason=said.get("reason"),
            finished_at=times.from_text(said["finished_at"]) if "finished_at" in said else None,
        )

    def cancel(self, run: Run) -> None:
        """Leave word for the shim, which looks five times a second."""
        directory = self._places(run).directory
        # On a full disk it cannot be left now; whoever wants it left asks again.
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "cancel").touch()

    def what_works(self) -> Mapping[str, str]:
        """The marked processes of the runs that have a directory here."""
        here = lifetime.marked_by_value("NFCTL_RUN_ID")
        return {
            run_id: f"{len(pids)} process{'es' if len(pids) > 1 else ''} (pid {', '.join(map(str, sorted(pids)[:5]))})"
            for run_id, pids in here.items()
            if (self._settings.data_dir / "runs" / run_id).is_dir()
        }

    def check(self) -> str:
        """Whether Nextflow is there and the data directory can be written."""
        nextflow = self._nextflow()
        if not os.access(self._settings.data_dir, os.W_OK):
            raise CannotStart(f"The data directory {self._settings.data_dir} cannot be written.")
        return f"local, {nextflow}"

    def _start(self, run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        """Start the run's shim unless it has or had one, in empty chunks. Raises CannotStart."""
        places = self._places(run)
        if _begun(places):
            return
        if place.get("offset") or run.status in (RunStatus.RUNNING, RunStatus.UNKNOWN):
            if _processes_of(run):
                raise ClusterAway(f"Run {run.run_id} is at work, but its directory {places.directory} is not there.")
            _bury(run, places.directory, _FILES_GONE)  # it must not begin again
            return
        try:
            nextflow = self._nextflow()
            self._prepare(run, places, nextflow)
            shim = self._launch_shim(places.directory)
        except CannotStart as error:
            if not (places.directory / "command.json").exists():  # without it nobody can have started the run
                with contextlib.suppress(OSError):  # but another may be about to
                    _write_whole(places.directory / "forbidden", str(error))
                raise
            yield from _call_off(places, place, str(error))
            return
        deadline = time.monotonic() + _START_SECONDS
        while not _begun(places):
            if time.monotonic() > deadline:
                said = (places.directory / "shim.err").read_text(errors="replace").strip()
                why = f"The run could not be started in {places.directory}: {said or 'no answer'}."
                yield from _call_off(places, place, why)
                return
            yield Chunk([], place, started=False)  # a worker that waits must hold on to the run
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            shim.wait(1)  # it goes on in a process of its own, and this one ends

    def _places(self, run: Run) -> RunPlaces:
        return run_places(self._settings.data_dir, run.run_id, run.session_id)

    def _nextflow(self) -> str:
        wanted = self._settings.nextflow_bin or "nextflow"
        found = shutil.which(wanted)
        if found is None:
            raise CannotStart(
                f"Nextflow was not found ({wanted}). Install it, or set NEXTFLOW_BIN, and submit the run again."
            )
        return found

    def _prepare(self, run: Run, places: RunPlaces, nextflow: str) -> None:
        pipeline = command.pipeline_argument(run.pipeline, self._settings.pipelines_dir)
        if run.session_may_be_new and not _has_begun(run.session_id, places.launch):
            run = replace(run, resumes=False)
        made = command.build(run, nextflow, places, pipeline)
        try:
            places.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            places.reports.mkdir(exist_ok=True)
            made.directory.mkdir(parents=True, exist_ok=True)
            for path, content in made.files.items():
                path.touch(mode=0o600)
                path.write_bytes(content)
            order = {
                "run_id": run.run_id,
                "arguments": made.arguments,
                "environment": dict(made.environment),
                "directory": str(made.directory),
                "grace_seconds": self._settings.cancel_grace_seconds,
            }
            _write_whole(places.directory / "command.json", json.dumps(order))
        except OSError as error:
            raise CannotStart(f"The run's directory {places.directory} cannot be written: {error.strerror}.") from error

    def _launch_shim(self, directory: Path) -> subprocess.Popen[bytes]:
        try:
            with (directory / "shim.err").open("ab") as said:
                return subprocess.Popen(
                    [sys.executable, "-m", "worker.shim", str(directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=without_secrets(os.environ),
                )
        except OSError as error:
            raise CannotStart(f"The run cannot be started in {directory}: {error.strerror}.") from error


class _Tail:
    """Reads a run's log as it grows, and sleeps until its writer wakes it."""

    def __init__(self, directory: Path, offset: int) -> None:
        self.offset = offset
        self.more = False
        """Whether there was more than one look takes in."""
        self._directory = directory
        self._log: int | None = None
        self._wake = self._open_wake()

    def __enter__(self) -> "_Tail":
        return self

    def __exit__(self, *_: object) -> None:
        if self._wake is not None:
            os.close(self._wake)
        if (self._directory / "exit.json").exists():
            with contextlib.suppress(OSError):  # whoever reads all files there would wait for it for ever
                (self._directory / "wake").unlink()
        if self._log is not None:
            os.close(self._log)

    def read(self, *, last: bool = False) -> list[Record]:
        """The whole lines after `offset`, as many as fit in one look; moves `offset` behind them.

        The `last` time, a line whose end was never written is taken as it is.
        """
        if self._log is None:
            try:
                self._log = os.open(self._directory / "log", os.O_RDONLY)
            except FileNotFoundError:
                return []
        data = os.pread(self._log, READ_BYTES, self.offset)
        records, used = parse_records(data, last=last)
        self.more = len(data) == READ_BYTES
        self.offset += used
        return records

    def _open_wake(self) -> int | None:
        """The FIFO by which the log's writer wakes its reader; None where the file system has none."""
        wake = self._directory / "wake"
        with contextlib.suppress(OSError):
            if not wake.exists():
                os.mkfifo(wake, 0o600)
            # Read and write, so that it has no end when the writer goes.
            return os.open(wake, os.O_RDWR | os.O_NONBLOCK)
        return None

    def wait(self, seconds: float) -> None:
        """Sleep until something was written, or for that long; without a FIFO only for a moment."""
        if self._wake is None:
            time.sleep(_GATHER_SECONDS)
            return
        ready, _, _ = select.select([self._wake], [], [], seconds)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 65_536)


def parse_records(data: bytes, *, last: bool = False) -> tuple[list[Record], int]:
    """The whole lines in a piece of a log, and how many bytes they take. Parts of one line are joined."""
    whole = data[: data.rfind(b"\n") + 1]
    if b" P " in whole:
        return _parse_parts(data, last=last)
    records = []
    for line in whole.decode(errors="replace").split("\n")[:-1]:  # at once: with no parts, nobody counts bytes
        try:
            stamp, stream, _, text = line.split(" ", 3)
        except ValueError:  # not as the shim writes it
            stamp, stream, _, text = [*line.split(" ", 3), "", "", ""][:4]
        records.append(Record(stamp, stream, text))
    return records, len(whole)


def _parse_parts(data: bytes, *, last: bool) -> tuple[list[Record], int]:
    records: list[Record] = []
    used = position = 0
    parts: list[bytes] = []
    begun = (b"", b"")
    for raw in data.split(b"\n")[:-1]:
        try:
            stamp, stream, kind, text = raw.split(b" ", 3)
        except ValueError:  # not as the shim writes it
            stamp, stream, kind, text = [*raw.split(b" ", 3), b"", b"", b""][:4]
        if kind != b"P" and not parts:
            position = used = position + len(raw) + 1
            records.append(_record(stamp, stream, text))
            continue
        if parts and stream != begun[1]:  # the other stream speaks in the middle of a line: what there is of it is cut
            records.append(_record(*begun, b"".join(parts)))
            parts, used = [], position
        position += len(raw) + 1
        begun = (stamp, stream)
        parts.append(text)
        if kind == b"P" and len(parts) < _LONGEST_LINE_PARTS:
            continue
        records.append(_record(*begun, b"".join(parts)))
        parts, used = [], position
    if parts and last:
        records.append(_record(*begun, b"".join(parts)))
        used = position
    return records, used


def _record(stamp: bytes, stream: bytes, text: bytes) -> Record:
    return Record(
        stamp.decode(errors="replace"),
        stream.decode(errors="replace"),
        text.decode(errors="replace"),
    )


def _call_off(places: RunPlaces, place: Mapping[str, Any], why: str) -> Iterator[Chunk]:
    """Keep a shim that comes late from starting the run, in empty chunks. Raises CannotStart unless it has begun."""
    told = False
    while not _begun(places):
        notices: tuple[Notice, ...] = ()
        try:
            _write_whole(places.directory / "forbidden", why)
            if not _begun(places):
                raise CannotStart(why)
        except OSError as error:
            notices = () if told else (_stuck(places.directory, error),)
            told = True
        yield Chunk([], place, started=False, notices=notices)
        time.sleep(_PULSE_SECONDS)


def _stuck(directory: Path, error: OSError) -> Notice:
    """Nobody knows whether the run will begin, and nobody can be told that it must not."""
    message = f"{directory} cannot be written ({error.strerror}), so the run can neither start nor be cancelled."
    return Notice("stuck", "warning", message, "service", hint="Make room there; then it starts, or is given up.")


def _write_whole(path: Path, text: str) -> None:
    """Whoever reads the file sees all of the text or none, also when two write it."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def _begun(places: RunPlaces) -> bool:
    return (places.directory / "started").exists() or (places.directory / "exit.json").exists()


def _bury_if_dead(run: Run, places: RunPlaces) -> None:
    """End what a killed shim left behind, and say so in its place."""
    # In this order: a shim that is gone by now has written how it ended, if it ended in order.
    if not _shim_is_gone(places.directory) or (places.directory / "exit.json").exists():
        return
    _bury(run, places.directory, _SHIM_GONE)


def _bury(run: Run, directory: Path, reason: str) -> None:
    """End what is left of a run, and say how it ended in place of a shim that cannot."""
    lifetime.kill_until_gone(lambda: _processes_of(run))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_whole(directory / "exit.json", json.dumps({"code": None, "reason": reason}))


def _processes_of(run: Run) -> list[int]:
    return lifetime.marked_processes(f"NFCTL_RUN_ID={run.run_id}")


def _shim_is_gone(directory: Path) -> bool:
    try:
        lock = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _has_begun(session_id: str, directory: Path) -> bool:
    """Whether Nextflow has noted that it began that session there; it resumes no other. Raises CannotStart."""
    history = directory / os.environ.get("NXF_CACHE_DIR", ".nextflow") / "history"
    try:
        return session_id.encode() in history.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CannotStart(f"Nextflow's history {history} cannot be read: {error.strerror}.") from error
