"""Owns one run's Nextflow on this machine and outlives the worker that started it.

`python -m worker.shim DIRECTORY` goes to the background, starts the command that DIRECTORY/command.json
holds, and writes what it prints, stamped, to DIRECTORY/log, a line as `TIME STREAM F|P TEXT` (the format of
container logs; P: the line goes on in the next record). At the end it writes DIRECTORY/exit.json. A file
DIRECTORY/cancel ends the run, or keeps it from starting, and so does DIRECTORY/forbidden, which says why.
There is never a second shim or a second start in the same directory. Only the standard library is imported,
for a small and quick process.
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared import lifetime

PART_BYTES = 16_384
_READ_BYTES = 65_536
_PULSE_SECONDS = 0.2
_DRAIN_SECONDS = 1.0
_NEVER_BEGAN = "Cancelled before Nextflow started."


class LineSplitter:
    """Cuts a byte stream into records: whole lines, and parts of lines longer than `PART_BYTES`."""

    def __init__(self, stream: str) -> None:
        self._head = f" {stream} ".encode()
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The records that these bytes complete, stamped with the present."""
        head = _stamp().encode() + self._head
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            while len(line) > PART_BYTES:
                yield head + b"P " + line[:PART_BYTES] + b"\n"
                line = line[PART_BYTES:]
            yield head + b"F " + line + b"\n"
        while len(self._rest) >= PART_BYTES:
            yield head + b"P " + self._rest[:PART_BYTES] + b"\n"
            self._rest = self._rest[PART_BYTES:]

    def end(self) -> Iterator[bytes]:
        """The last line, if the stream ended without a newline."""
        if self._rest:
            yield _stamp().encode() + self._head + b"F " + self._rest + b"\n"
            self._rest = b""


class Shim:
    """One run: its child, its log and its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._wake: int | None = None
        self._selector = selectors.DefaultSelector()
        self._told_to_end = False
        self._cancelled = False
        self._why: str | None = None
        self._killed = False
        self._kill_at = float("inf")
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """From the start of the child to `exit.json`."""
        command = json.loads((self._directory / "command.json").read_bytes())
        self._marker = f"NFCTL_RUN_ID={command['run_id']}"
        self._grace = float(command["grace_seconds"])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._say_started()
        # After that: whoever leaves a word looks whether it has started, and knows then that the word will be seen.
        if self._word_is_left():
            self._end({"code": None, "cancelled": self._cancelled, "reason": self._why or _NEVER_BEGAN})
            return
        try:
            child = self._spawn(command)
        except OSError as error:
            self._end({"code": None, "reason": f"{command['arguments'][0]} cannot be started: {error.strerror}."})
            return
        self._child = child
        code = self._follow(child)
        self._end({"code": code, "cancelled": self._cancelled, "killed": self._killed, "reason": self._why})

    def _say_started(self) -> None:
        """Note that there must be no second start, also if the machine loses its power in a moment."""
        for path, flags in ((self._directory / "started", os.O_WRONLY | os.O_CREAT), (self._directory, os.O_RDONLY)):
            there = os.open(path, flags, 0o600)
            with contextlib.suppress(OSError):  # not every file system does
                os.fsync(there)
            os.close(there)

    def _word_is_left(self) -> bool:
        """Whether somebody wants the run to end: a person, or the service, which says why."""
        with contextlib.suppress(FileNotFoundError):
            self._why = (self._directory / "forbidden").read_text()
        self._cancelled = self._why is None and (self._directory / "cancel").exists()
        return self._cancelled or self._why is not None

    def _spawn(self, command: dict[str, Any]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command["arguments"],
            cwd=command["directory"],
            env=os.environ | command["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lifetime.end_with_parent,
        )

    def _follow(self, child: subprocess.Popen[bytes]) -> int:
        self._wake_on_child_end()
        for stream, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            assert pipe is not None  # noqa: S101 - asked for above
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, LineSplitter(stream))
        open_pipes, drained_by = 2, float("inf")
        while open_pipes and time.monotonic() < drained_by:
            open_pipes -= self._read_ready()
            if child.poll() is None:
                self._mind_end(child)
            elif drained_by == float("inf"):
                # What the child left behind may hold the pipes open; once it is dead, what is in them can be read.
                self._kill_all()
                drained_by = time.monotonic() + _DRAIN_SECONDS
        while child.poll() is None:
            self._mind_end(child)
            time.sleep(_PULSE_SECONDS)
        self._kill_all()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, LineSplitter):
                self._write(key.data.end())
        return child.returncode

    def _wake_on_child_end(self) -> None:
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, None)

    def _read_ready(self) -> int:
        """Write what has come; returns how many pipes have ended."""
        ended = 0
        for key, _ in self._selector.select(_PULSE_SECONDS):
            data = os.read(key.fd, _READ_BYTES)
            if key.data is None:
                continue
            if data:
                self._write(key.data.feed(data))
            else:
                self._write(key.data.end())
                self._selector.unregister(key.fileobj)
                ended += 1
        return ended

    def _mind_end(self, child: subprocess.Popen[bytes]) -> None:
        lifetime.reap(besides=child.pid)
        if not self._cancelled and self._why is None and self._word_is_left():
            self._told_to_end = True
        if self._told_to_end and self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + self._grace
            child.terminate()
        if time.monotonic() >= self._kill_at and not self._killed:
            self._killed = True
            self._kill_all()

    def _kill_all(self) -> None:
        """SIGKILL for every process of the run: by its mark, and whatever has this process as its ancestor."""
        own = os.getpid()

        def alive() -> list[int]:
            lifetime.reap(besides=self._child.pid if self._child else 0)
            found = {*lifetime.marked_processes(self._marker), *lifetime.descendants(own)}
            # Ended and only waiting to be asked for its exit code.
            return [pid for pid in found if not lifetime.is_zombie(pid)]

        lifetime.kill_until_gone(alive)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._told_to_end = True

    def _write(self, records: Iterator[bytes]) -> None:
        data = memoryview(b"".join(records))
        while data:
            try:
                data = data[os.write(self._log, data) :]
            except OSError:  # a full disk: the child waits in its pipe until there is room again
                time.sleep(_PULSE_SECONDS)
                if self._child is not None and self._child.poll() is None:
                    self._mind_end(self._child)
        self._wake_follower()

    def _wake_follower(self) -> None:
        try:
            if self._wake is None:
                self._wake = os.open(self._directory / "wake", os.O_WRONLY | os.O_NONBLOCK)
            os.write(self._wake, b".")
        except BlockingIOError:  # it is awake
            pass
        except OSError:  # nobody follows now
            if self._wake is not None:
                os.close(self._wake)
            self._wake = None

    def _end(self, outcome: dict[str, Any]) -> None:
        text = json.dumps(outcome | {"finished_at": _stamp()})
        while True:
            try:
                part = self._directory / "exit.json.part"
                part.write_text(text)
                part.replace(self._directory / "exit.json")
                break
            except OSError:  # a full disk: the end must be told, however late
                time.sleep(1)
        self._wake_follower()


def main() -> None:
    """Go to the background and own the run, unless the directory has or had a shim."""
    directory = Path(sys.argv[1])
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if (directory / "started").exists() or (directory / "exit.json").exists():
        return
    lifetime.adopt_orphans()
    Shim(directory).run()


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    main()
