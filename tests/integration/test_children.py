"""The processes of `nfctl up`, as real processes."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from nfctl import service
from nfctl.children import Child, Program

SLEEP = "import time; time.sleep(600)"


def child_of(tmp_path: Path, said: list[str], code: str = SLEEP) -> Child:
    return Child(Program("sleeper", [sys.executable, "-c", code], dict(os.environ), tmp_path / "log", 5), said.append)


def watched(child: Child) -> Child:
    """The child after one more look at it."""
    child.watch()
    return child


def test_what_was_not_started_is_not_watched(tmp_path: Path) -> None:
    """Watching starts nothing that was not asked for, neither before its start nor after its end."""
    child = child_of(tmp_path, [])
    child.watch()
    assert child.pid is None
    child.start()
    child.ask_to_end()
    child.wait_for_end()
    child.watch()
    assert child.pid is None


def test_what_dies_is_started_again_and_said(tmp_path: Path, eventually: Any) -> None:
    """A killed program comes back under another pid, and the words name it and the signal."""
    said: list[str] = []
    child = child_of(tmp_path, said)
    child.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: watched(child).pid not in (None, first))
    child.ask_to_end()
    child.wait_for_end()
    [words] = said
    assert "sleeper" in words
    assert "SIGKILL" in words


def test_what_cannot_be_started_again_is_tried_again(tmp_path: Path, eventually: Any) -> None:
    """A machine that has no process to give for a moment does not end the service."""
    said: list[str] = []
    child = child_of(tmp_path, said)
    child.start()
    first = child.pid
    assert first is not None
    child.program.log.unlink()
    child.program.log.mkdir()  # so that its log cannot be opened
    os.kill(first, signal.SIGKILL)
    eventually(lambda: watched(child).pid is None and any("cannot start" in words for words in said))
    child.program.log.rmdir()
    eventually(lambda: watched(child).pid is not None)
    child.ask_to_end()
    child.wait_for_end()


def test_two_redis_never_work_on_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an earlier one lives, whose parent may be dead, another is not started; then it is."""
    monkeypatch.setattr(service, "_EARLIER_REDIS_SECONDS", 0.3)
    earlier = service._private_redis(tmp_path, Path(sys.executable))[1]
    child = Child(
        Program("redis", [sys.executable, "-c", SLEEP], dict(os.environ), tmp_path / "log", 5, earlier.files), print
    )
    child.start()
    for lock in earlier.files:  # as when the parent is gone
        os.close(lock)
    with pytest.raises(service.CannotServe, match="earlier Redis"):
        service._private_redis(tmp_path, Path(sys.executable))
    child.ask_to_end()
    child.wait_for_end()
    for lock in service._private_redis(tmp_path, Path(sys.executable))[1].files:
        os.close(lock)


def test_what_will_not_end_is_killed(tmp_path: Path, eventually: Any) -> None:
    """Patience has an end."""
    said: list[str] = []
    ready = tmp_path / "ready"
    stubborn = f"import signal; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); {SLEEP}"
    program = Program("stubborn", [sys.executable, "-c", stubborn], dict(os.environ), tmp_path / "log", 0.1)
    child = Child(program, said.append)
    child.start()
    pid = child.pid
    eventually(ready.exists)
    child.ask_to_end()
    child.wait_for_end()
    assert not Path(f"/proc/{pid}").exists()
    assert "is killed" in said[0]
