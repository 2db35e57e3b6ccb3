"""Processes: those that a measurement starts and ends, and what /proc says of them."""

import json
import os
import re
import resource
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nfctl.children import Child, Program
from shared.lifetime import descendants, end_with_parent, is_zombie

_TESTS = Path(__file__).parents[1]
_START_SECONDS = 60
# What a process has open beside its sockets.
_OTHER_FILES = 500
_TICK = os.sysconf("SC_CLK_TCK")


class TrialFailed(Exception):
    """Something that a measurement needs did not start, ended, or refused; the message says what."""


class Talker:
    """A child that is told lines and answers each with a line of JSON."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._name = log.stem
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                list(arguments),
                env=dict(environment),
                bufsize=0,  # or a line could wait in a buffer that select does not know
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                preexec_fn=end_with_parent,
            )

    @property
    def pid(self) -> int:
        """The child's id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Say one line to it."""
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")

    def hear(self, seconds: float) -> dict[str, Any]:
        """Its next line. Raises TrialFailed when none comes within so long."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise TrialFailed(f"{self._name} says nothing. {_last_words(self._log)}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def talking(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Talker]:
    """A talker that ends with the block."""
    talker = Talker(arguments, environment, log)
    try:
        yield talker
    finally:
        talker.end()


@contextmanager
def serving(program: Program, ready: Callable[[], bool]) -> Iterator[int]:
    """Start a server and wait until it is ready; gives its pid and ends it with the block. Raises TrialFailed."""
    child = Child(program, lambda _: None)  # that one had to be killed is nothing to tell
    child.start()
    try:
        pid = child.pid
        assert pid is not None
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if is_zombie(pid) or time.monotonic() > deadline:
                raise TrialFailed(f"{program.name} does not start. {_last_words(program.log)}")
            time.sleep(0.01)
        yield pid
    finally:
        child.ask_to_end()
        child.wait_for_end()


def environment(*folders: Path) -> dict[str, str]:
    """That of this process, with `tests` and these folders on Python's path."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (_TESTS, *folders)))}


def allow_files(sockets: int) -> None:
    """Let this process and its children open as many files as they may. Raises TrialFailed when that is too few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < sockets + _OTHER_FILES:
        raise TrialFailed(f"A process may open {most} files here, too few for {sockets} sockets: raise `ulimit -Hn`.")


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    return [pid, *descendants(pid)]


def parent(pid: int) -> int:
    """The parent of a living process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def cpu_seconds(pid: int) -> float:
    """What a process and its descendants have used, user and system, those that still live."""
    return sum(map(own_cpu_seconds, family(pid)))


def own_cpu_seconds(pid: int) -> float:
    """What one process has used, user and system; 0 once it has ended."""
    # The kernel's CPU clock of a process, numbered as clock_getcpuclockid(3) does: /proc tells the same, but in ticks
    # of 10 ms, and cuts off what is less for each process.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it has ended
        return 0.0


def busiest(pids: Sequence[int], meanwhile: Callable[[], object]) -> int:
    """The one of these that works most while that is done."""
    before = {pid: own_cpu_seconds(pid) for pid in pids}
    meanwhile()
    return max(pids, key=lambda pid: own_cpu_seconds(pid) - before[pid])


def wakes(pid: int) -> int:
    """How often the living threads of a process have waited for something so far, and went on."""
    told = (_read(pid, f"task/{thread.name}/status") for thread in Path(f"/proc/{pid}/task").glob("*"))
    found = (re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE) for status in told)
    return sum(int(one[1]) for one in found if one)


class Used:
    """What a process and its descendants of this moment use from now on, those that still live when it is asked."""

    def __init__(self, pid: int) -> None:
        self._pids = family(pid)
        self._before = self._so_far()

    def seconds(self) -> float:
        """User and system."""
        return self._so_far() - self._before

    def _so_far(self) -> float:
        return sum(map(own_cpu_seconds, self._pids))


def cpu_to_end(
    command: Sequence[str], stdin: int | IO[bytes] = subprocess.DEVNULL, its: Mapping[str, str] | None = None
) -> float:
    """Run this to its end, what it says thrown away, and give the CPU seconds it took. Raises TrialFailed."""
    child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, env=its)
    used = cpu_at_end(child)
    if child.returncode:
        raise TrialFailed(f"{' '.join(command)} ended with {child.returncode}.")
    return used


def said(command: Sequence[str], its: Mapping[str, str], seconds: float) -> tuple[str, str]:
    """What a command says on its two outputs. Raises TrialFailed when it fails, or takes longer."""
    try:
        done = subprocess.run(command, env=dict(its), capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise TrialFailed(f"{' '.join(command)} did not end within {seconds:.0f} s.") from error
    if done.returncode:
        raise TrialFailed(f"{' '.join(command)} failed ({done.returncode}): {(done.stderr or done.stdout)[-500:]}")
    return done.stdout, done.stderr


def cpu_at_end(child: subprocess.Popen[bytes]) -> float:
    """Wait until a child has ended and give the CPU seconds it took."""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def kernel_seconds(pid: int) -> float:
    """What of that the kernel has used for a process and its living descendants, in ticks of 10 ms each."""
    return sum(int(stat.rsplit(")", 1)[1].split()[12]) for one in family(pid) if (stat := _read(one, "stat"))) / _TICK


def machine_seconds() -> float:
    """What all processors of the machine have worked together, whoever for."""
    user, nice, system, _idle, _iowait, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(int(ticks) for ticks in (user, nice, system, *interrupts)) / _TICK


def memory_kib(pid: int) -> int:
    """The proportional set size of a process and its descendants, in KiB."""
    return sum(map(_own_memory_kib, family(pid)))


def memory(pid: int) -> float:
    """The proportional set size of one process, in MiB; 0 once it has ended."""
    return _own_memory_kib(pid) / 1024


def _own_memory_kib(pid: int) -> int:
    lines = _read(pid, "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has ended
        return ""


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])
