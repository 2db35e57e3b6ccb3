"""Cache: folders that are filled once, whole or not at all, by whichever process comes first."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Say = Callable[[str], None]

SECONDS_BETWEEN_SIGNS = 5.0
"""How often whoever waits hears that something still goes on."""


def cache_directory() -> Path:
    """Where tools are kept: outside any checkout, so that every clone finds them. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative value counts as none.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "nextflow-controller"


def install_once(name: str, fill: Callable[[Path], None], say: Say) -> Path:
    """The folder `name` of the cache, filled by `fill(folder)` unless it is there.

    It appears in one move when `fill` returned, so nobody ever sees half of it. Of several processes that
    ask at once, one fills and the others wait. What `fill` raises is passed on, and nothing is left behind.
    """
    target = cache_directory() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(name, say):
        if not target.is_dir():
            _fill_and_move(target, fill)
    return target


@contextmanager
def locked(name: str, say: Say) -> Iterator[None]:
    """Holds the cache's lock of that name: one holder on a machine; the kernel frees that of a dead one."""
    directory = cache_directory() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        _wait_for(lock, name, say)
        yield


def _fill_and_move(target: Path, fill: Callable[[Path], None]) -> None:
    # The lock is ours, so whatever lies here was left by a process that was killed.
    for abandoned in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    filling = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        # mkdtemp lets nobody else in, but a run may execute as another user than the one who installed.
        filling.chmod(0o755)
        fill(filling)
        filling.rename(target)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def _wait_for(lock: IO[str], name: str, say: Say) -> None:
    started = told = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if now - told >= SECONDS_BETWEEN_SIGNS:
                told = now
                say(f"waiting for another process that installs {name} … {now - started:.0f} s")
            time.sleep(0.1)
        else:
            return
