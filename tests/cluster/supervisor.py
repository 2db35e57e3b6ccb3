"""Supervisor: process 1 of the node's own pid and mount namespace. It starts the parts and keeps them running.

It is run by its path and needs nothing but the standard library. When it dies, the kernel ends all that
it started, containers too. It obeys one JSON object a connection on its socket: `{"start": NAME, …}`,
`{"stop": NAME}` or `{}`, and answers with one: the pids, in its own namespace, of the parts that run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_STARTS = 1.0
SECONDS_TO_STOP = 5.0
"""A part that is still there so long after its SIGTERM gets SIGKILL: the API server waits for a minute for those who
follow a log."""


@dataclass
class Part:
    """One program of the node."""

    name: str
    command: Sequence[str]
    log: Path
    wanted: bool = True
    pid: int = 0
    """0 when it does not run."""
    started: float = 0.0

    def start(self) -> None:
        """Start it; its output goes to the end of its log."""
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # The supervisor itself waits for all children, so Popen must not wait for this one.
        child.returncode = 0
        self.pid = child.pid
        self.started = time.monotonic()


class Supervisor:
    """Starts, stops and restarts parts."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    def serve(self, listener: socket.socket) -> None:
        """Obey and look after the parts, for ever."""
        listener.settimeout(SECONDS_BETWEEN_LOOKS)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                pass
            else:
                with connection:
                    self._answer(connection)
            self._reap()
            self._restart_the_dead()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        try:
            with connection.makefile("rw", encoding="utf-8") as stream:
                line = stream.readline()
                if line:
                    stream.write(json.dumps(self._obey(json.loads(line))) + "\n")
        except (OSError, ValueError) as error:
            print(f"a command failed: {error}", flush=True)

    def _obey(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        if name := order.get("stop"):
            self._stop(name)
        if name := order.get("start"):
            self._start(name, order["command"], Path(order["log"]))
        return {"pids": {part.name: part.pid for part in self._parts.values() if part.pid}}

    def _start(self, name: str, command: Sequence[str], log: Path) -> None:
        part = self._parts.setdefault(name, Part(name, command, log))
        part.command, part.log, part.wanted = command, log, True
        if not part.pid:
            part.start()

    def _stop(self, name: str) -> None:
        part = self._parts.get(name)
        if part is None:
            return
        part.wanted = False
        self._signal(part, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_STOP
        while part.pid:
            self._reap()
            if time.monotonic() > deadline:
                self._signal(part, signal.SIGKILL)
            time.sleep(0.02)

    def _signal(self, part: Part, number: signal.Signals) -> None:
        # Only this process reaps, so the pid is still the part's.
        if part.pid:
            os.kill(part.pid, number)

    def _reap(self) -> None:
        """Takes every dead child: parts, and what containers' shims left to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for part in self._parts.values():
                if part.pid == pid:
                    part.pid = 0
                    print(f"{part.name} ended with {os.waitstatus_to_exitcode(status)}", flush=True)

    def _restart_the_dead(self) -> None:
        for part in self._parts.values():
            if part.wanted and not part.pid and time.monotonic() - part.started > SECONDS_BETWEEN_STARTS:
                print(f"{part.name} is started again", flush=True)
                part.start()


def _mount_private_places(private: Path, places: Sequence[str]) -> None:
    for place in places:
        subprocess.run(["mount", "--bind", str(private / place.lstrip("/")), place], check=True)


def main(socket_path: str, private: str, *places: str) -> None:
    """Show `private` in those places of the system, then obey on the socket."""
    # Process 1 gets only the signals that it handles, but a child would inherit what is ignored here.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _mount_private_places(Path(private), places)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen()
        Supervisor().serve(listener)


if __name__ == "__main__":
    main(*sys.argv[1:])
