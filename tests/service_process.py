"""The whole service as real processes, started by `nfctl up` on free ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from ports import free_port

from nfctl.client import Client, Unreachable

ROOT = Path(__file__).parents[1]
FINAL = ("succeeded", "failed", "cancelled")


class Service:
    """One service in a data directory of its own."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port, self.flower_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.flower = f"http://127.0.0.1:{self.flower_port}"
        self.client = Client(self.url, None)
        self.environment = {
            **{key: value for key, value in os.environ.items() if key not in ("REDIS_URL", "NEXTFLOW_BIN")},
            "DATA_DIR": str(data_dir),
            "PORT": str(self.port),
            "FLOWER_PORT": str(self.flower_port),
            "PIPELINES_DIR": str(ROOT / "examples"),
            "NFCTL_URL": self.url,
            "RATE_LIMIT": "100000/minute",
            "CANCEL_GRACE_SECONDS": "20",
            # Who is killed leaves temporary files behind.
            "TMPDIR": str(data_dir.parent),
            "NXF_TEMP": str(data_dir.parent),
            **settings,
        }
        self._parent: subprocess.Popen[bytes] | None = None
        self.output = data_dir / "up.log"

    @property
    def pid(self) -> int:
        """The parent of all."""
        assert self._parent is not None
        return self._parent.pid

    def start(self) -> None:
        """Start all and wait until it says that it is ready."""
        self._launch()
        self.wait(lambda: b"Ready." in self.output.read_bytes() or self._parent_code() is not None, 120)
        assert self._parent_code() is None, self._why_it_ended()

    def interrupt_start(self, after: float) -> int:
        """Start, press Ctrl-C so many seconds later, and wait for the end; returns its exit code."""
        self._launch()
        time.sleep(after)
        return self.stop(signal.SIGINT)

    def _launch(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as output:
            self._parent = self.up(subprocess.DEVNULL, output)

    def up(self, stdin: int, output: int | IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
        """`nfctl up` itself, for whoever minds it."""
        return subprocess.Popen(
            [sys.executable, "-m", "nfctl", "up", *arguments],
            cwd=self.data_dir,
            env=self.environment,
            stdin=stdin,
            stdout=output,
            stderr=output,
            # Whoever runs the tests in the background ignores Ctrl-C, and so would all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the parent a signal and wait for its end."""
        assert self._parent is not None
        self._parent.send_signal(number)
        code = self._parent.wait(90)
        self._parent = None
        return code

    def nfctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of nfctl against this service."""
        return subprocess.run(
            [sys.executable, "-m", "nfctl", *arguments],
            cwd=self.data_dir,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def get(self, path: str, **query: Any) -> httpx.Response:
        """A plain GET."""
        return httpx.get(self.url + path, params=query, timeout=30)

    def submit(self, pipeline: str, **more: Any) -> str:
        """Submit a run that waits for its turn; returns its id."""
        answer = self.client.submit({"pipeline": pipeline, "when_busy": "queue", **more})
        return str(answer["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """`RunInfo`."""
        found: dict[str, Any] = self.client.call("GET", f"/runs/{run_id}")
        return found

    def ended(self, run_id: str, seconds: float = 120) -> dict[str, Any]:
        """`RunInfo` at the run's end."""
        self.wait(lambda: self.run(run_id)["status"] in FINAL, seconds)
        return self.run(run_id)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """All kept events."""
        found: list[dict[str, Any]] = []
        while page := self.client.call(
            "GET", f"/runs/{run_id}/events", params={"since": found[-1]["id"] if found else 0, "limit": 500}
        )["events"]:
            found += page
        return found

    def lines(self, run_id: str) -> list[str]:
        """The kept log."""
        return self.client.text(f"/runs/{run_id}/logs").splitlines()

    def children(self, name: str) -> list[int]:
        """Pids of the service's processes whose command line has this word, the topmost first."""
        return [pid for pid in _descendants(self.pid) if name in _command_line(pid)]

    def peak_memory(self) -> dict[int, float]:
        """The most that each of the service's processes ever had in memory, in MiB, by pid."""
        found = {}
        for pid in _descendants(self.pid):
            for line in _read(Path(f"/proc/{pid}/status")).decode().splitlines():
                if line.startswith("VmHWM:"):
                    found[pid] = int(line.split()[1]) / 1024
        return found

    def of_run(self, run_id: str) -> list[int]:
        """Pids of all living processes of a run."""
        mark = f"NFCTL_RUN_ID={run_id}".encode()
        entries = Path("/proc").glob("[0-9]*")
        return [int(entry.name) for entry in entries if mark in _read(entry / "environ").split(b"\0")]

    def lose_newest(self, seconds: float = 1.0) -> None:
        """Kill Redis, and have it forget what it wrote in the last seconds, as when a machine loses its power."""
        [server] = self.children("redis-server")
        [file] = (self.data_dir / "redis").rglob("*.aof")
        kept = file.stat().st_size
        time.sleep(seconds)
        os.kill(server, signal.SIGSTOP)
        self.wait(lambda: _read(Path(f"/proc/{server}/stat")).rpartition(b") ")[2].startswith(b"T"))
        os.truncate(file, kept)
        os.kill(server, signal.SIGKILL)

    @staticmethod
    def wait(ask: Callable[[], object], seconds: float = 30) -> None:
        """Until the answer is true; fails when it is not for so long. A service that is away just now is no answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(Unreachable):
                if ask():
                    return
            time.sleep(0.05)
        pytest.fail(f"not so after {seconds} s")

    def _why_it_ended(self) -> str:
        """What it said, and the last that each of its processes did: where a test fails, the files are often gone."""
        said = [f"nfctl up ended with {self._parent_code()}", *self.output.read_text().splitlines()]
        for log in sorted((self.data_dir / "logs").glob("*.log")):
            said += [f"{log.name}: {line}" for line in log.read_text(errors="replace").splitlines()[-5:]]
        return "\n".join(said)

    def _parent_code(self) -> int | None:
        return self._parent.poll() if self._parent else None

    def kill(self) -> None:
        """Stop whatever is left after a test."""
        if self._parent is not None and self._parent.poll() is None:
            self.stop()
        for entry in (self.data_dir / "runs").glob("*"):
            for pid in self.of_run(entry.name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]
    return children + [below for child in children for below in _descendants(child)]


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
