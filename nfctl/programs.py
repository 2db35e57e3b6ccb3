"""Programs: looking for one, running one, and trying one way after another to get one."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nfctl.cache import SECONDS_BETWEEN_SIGNS, Say, locked

Way = Callable[[Say], Path]


class ToolMissing(Exception):
    """A program is missing and cannot be installed from here; the text tells a person what to do."""


class InstallFailed(Exception):
    """One way to get a program did not work; the text says why, in a few words."""


def first_of(ways: Sequence[Way], say: Say, missing: str, advice: str) -> Path:
    """What the first working way gives; raises ToolMissing with each way's reason and the advice."""
    reasons = []
    for way in ways:
        try:
            return way(say)
        except InstallFailed as error:
            reasons.append(str(error))
    raise ToolMissing(f"{missing}: {'; '.join(reasons)}.\n{advice}")


def run(command: Sequence[str], say: Say, doing: str, environment: Mapping[str, str] | None = None) -> str:
    """What the command printed, on both streams; `say` hears `doing` first, and a sign of life every 5 s.

    Raises InstallFailed with the command's most telling line when it fails or cannot be started.
    """
    say(f"{doing} …")
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        with _child(command, output, environment) as child:
            while not _ended(child):
                say(f"{doing} … {time.monotonic() - started:.0f} s")
        output.seek(0)
        text = output.read().decode(errors="replace")
    if child.returncode:
        raise InstallFailed(f"{Path(command[0]).name}: {_telling_line(text, child.returncode)}")
    return text


def on_path(name: str) -> Path:
    """The program of that name; raises InstallFailed when PATH has none."""
    found = shutil.which(name)
    if not found:
        raise InstallFailed(f"no {name} on PATH")
    return Path(found)


def printed_by(program: Path, question: str) -> str:
    """What it answers, whatever its exit code; raises InstallFailed when it does not start, or hangs."""
    asked = [str(program), question]
    try:
        answer = subprocess.run(
            asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError as error:
        raise InstallFailed(f"{program} does not start ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(f"{program} {question} hangs") from error
    return answer.stdout + answer.stderr


def apt_install(packages: Sequence[str], say: Say, doing: str) -> None:
    """Installs Debian packages; raises InstallFailed, without asking, unless this is root on Debian."""
    apt = str(on_path("apt-get"))
    if os.geteuid() != 0:
        raise InstallFailed("apt-get needs root")
    quietly = [apt, "--quiet", "--yes", "--no-install-recommends", "--option=DPkg::Lock::Timeout=300"]
    asking_nothing = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with locked("apt", say):
        run([*quietly, "update"], say, "apt-get: reading the package lists", asking_nothing)
        run([*quietly, "install", *packages], say, doing, asking_nothing)


@contextmanager
def _child(
    command: Sequence[str], output: IO[bytes], environment: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    except OSError as error:
        raise InstallFailed(f"{command[0]} does not start ({error.strerror})") from error
    try:
        yield child
    finally:
        # After Ctrl-C here it must not go on there.
        if child.poll() is None:
            child.terminate()
            child.wait()


def _ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(SECONDS_BETWEEN_SIGNS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _telling_line(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Maven and apt-get name the cause in their first error line; what follows is advice on how to see more.
    errors = [line for line in lines if line.upper().lstrip("[").startswith(("ERROR", "E:"))]
    return (errors[:1] or lines[-1:] or [f"exit code {code}"])[0][:300]
