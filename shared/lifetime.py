"""Ties the life of one process to another's, where the system can (Linux); elsewhere these do nothing."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Ask for SIGTERM when the parent dies. To be called in the child, before exec."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def marked_processes(marker: str) -> list[int]:
    """Pids of the living processes, this one left out, whose environment at their start held `NAME=value`."""
    wanted = marker.encode()
    return [pid for pid, variables in _environments() if pid != os.getpid() and wanted in variables]


def marked_by_value(name: str) -> dict[str, list[int]]:
    """Pids of the living processes whose environment at their start held `name`, by its value."""
    mark = name.encode() + b"="
    found: dict[str, list[int]] = {}
    for pid, variables in _environments():
        for variable in variables:
            if variable.startswith(mark):
                found.setdefault(variable[len(mark) :].decode(errors="replace"), []).append(pid)
    return found


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it has ended, or belongs to somebody else
            continue
        yield int(entry.name), environment.split(b"\0")


def descendants(pid: int) -> list[int]:
    """Pids of the living children of a process, of their children, and so on."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in tasks.read_text().split()]
        except OSError:  # it has ended
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only its exit code is left; also true when nothing of it is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def own_name() -> str:
    """What this process is told apart by from all others, of the past and on other machines too.

    Empty where that cannot be known.
    """
    try:
        return _name(os.getpid())
    except OSError:
        return ""


def has_ended(name: str) -> bool:
    """Whether the process of that name was one of this machine, or container, and is no more."""
    try:
        here = _name(os.getpid())
    except OSError:
        return False
    place, _, process = name.rpartition("/")
    if place != here.rpartition("/")[0]:
        return False
    try:
        return _name(int(process.partition("-")[0])) != name
    except (OSError, ValueError):
        return True


def _name(pid: int) -> str:
    """Which boot of which machine, which container of it, which process, and when that began."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    pids = Path("/proc/self/ns/pid").readlink()
    began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}/{pids}/{pid}-{began}"


def kill_until_gone(find: Callable[[], Iterable[int]]) -> None:
    """SIGKILL whatever `find` finds, until it finds nothing."""
    # A process may fork while the list is read, so it is read until it is empty; bounded all the same, because
    # one that hangs in the kernel dies later.
    for _ in range(100):
        pids = list(find())
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):  # one that a task started as somebody else
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def reap(besides: int = 0) -> None:
    """Collect every child that has ended, so that none stays as a zombie; leave the one whose end others await."""
    try:
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == besides:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
    except ChildProcessError:
        return
