"""Ties the life of one process to another's, where the system can (Linux); elsewhere these do nothing."""

import ctypes
import os
import signal
import sys
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
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if pid != os.getpid() and wanted in environment.split(b"\0"):
            found.append(pid)
    return found


def kill_marked(marker: str) -> int:
    """SIGKILL every marked process until none is left; returns how many there were."""
    killed: set[int] = set()
    # A process may fork while the list is read, so the list is read until it is empty; bounded all the same.
    for _ in range(100):
        pids = marked_processes(marker)
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(pid)
        reap()
    return len(killed)


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
