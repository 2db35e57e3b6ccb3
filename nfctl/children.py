"""The processes of the service: each is started, watched, started again when it dies, and stopped in order."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shared.lifetime import end_with_parent

Say = Callable[[str], None]
_LOG_BYTES = 10_000_000
_STEADY_SECONDS = 60.0
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to start. It has `patience` seconds to end after SIGTERM before it is killed. `files` stay open for it."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    patience: float = 15.0
    files: Sequence[int] = ()


class Child:
    """One program, kept running until it is stopped."""

    def __init__(self, program: Program, say: Say) -> None:
        self.program = program
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._started_at = 0.0
        self._start_at = 0.0
        self._pause = 1.0

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the program; it ends with this process, whatever becomes of this one."""
        self._wanted = True
        program = self.program
        _make_room(program.log)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(program.arguments),
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=program.files,
                # A session of its own: Ctrl-C in the terminal reaches only the parent, which stops all in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._started_at = time.monotonic()

    def watch(self) -> None:
        """Start the program again if it was started and has died, later the more often it dies."""
        if not self._wanted:
            return
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._start_again(now)
            return
        code = self._process.poll()
        if code is None:
            return
        if now - self._started_at > _STEADY_SECONDS:
            self._pause = 1.0
        self._say(
            f"{self.program.name} ended with {_ending(code)}; it starts again in {self._pause:.0f} s. "
            f"See {self.program.log}"
        )
        self._process = None
        self._wait_longer(now)

    def _start_again(self, now: float) -> None:
        try:
            self.start()
        except OSError as error:  # no memory or no room for a process just now
            self._say(f"{self.program.name} cannot start ({error.strerror}); again in {self._pause:.0f} s.")
            self._wait_longer(now)

    def _wait_longer(self, now: float) -> None:
        self._start_at = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting for what comes of it."""
        self._wanted = False
        if self._process is not None:
            self._process.terminate()

    def wait_for_end(self) -> None:
        """Be patient with a program that was asked to end, and then SIGKILL for all that is left of it."""
        process = self._process
        if process is None:
            return
        self._process = None
        try:
            process.wait(self.program.patience)
        except subprocess.TimeoutExpired:
            self._say(f"{self.program.name} did not end within {self.program.patience:.0f} s and is killed.")
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _make_room(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
