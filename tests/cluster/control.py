"""Control: starts the supervisor in namespaces of its own, gives it orders, and ends it with all that runs there."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.layout import PRIVATE_PLACES, Layout

_SUPERVISOR = Path(__file__).parent / "supervisor.py"
# Longer than the supervisor gives a part to stop.
_SECONDS_TO_OBEY = 30.0
_SECONDS_TO_APPEAR = 20.0
_SECONDS_TO_DIE = 30.0


class NodeFailed(Exception):
    """The node did not start, or a part of it did not; the text says which, and where its log is."""


def start_supervisor(layout: Layout) -> None:
    """Start it in new pid and mount namespaces, for good: it outlives this process and its terminal."""
    layout.control_socket.unlink(missing_ok=True)
    log = layout.logs / "supervisor.log"
    namespaces = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child=SIGKILL"]
    supervisor = [sys.executable, str(_SUPERVISOR), str(layout.control_socket), str(layout.private), *PRIVATE_PLACES]
    with log.open("ab") as output:
        # --fork: whoever starts the node need not be there to reap it.
        subprocess.run(
            ["setsid", "--fork", *namespaces, *supervisor],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            # A proxy or a setting of etcd in the caller's environment is not meant for the node.
            env={"PATH": os.environ["PATH"]},
            check=True,
        )
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    while (pid := _listening_pid(layout)) is None:
        if time.monotonic() > deadline:
            raise NodeFailed(f"the node's supervisor did not start; see {log}")
        time.sleep(0.02)
    layout.record.write_text(json.dumps({"pid": pid, "birth": _birth(pid)}))


def supervisor_pid(layout: Layout) -> int | None:
    """The supervisor's pid out here, or None when it has ended, and with it all that it started."""
    return _listening_pid(layout) or _recorded_pid(layout)


def obeys(layout: Layout) -> bool:
    """Whether the supervisor takes orders: one that was killed does not, while all that it started is ending."""
    try:
        _order(layout, {})
    except NodeFailed:
        return False
    return True


def start_part(layout: Layout, name: str, command: Sequence[str]) -> None:
    """Start one program of the node, unless it runs; it is started again whenever it ends by itself."""
    _order(layout, {"start": name, "command": list(command), "log": str(layout.logs / f"{name}.log")})


def stop_part(layout: Layout, name: str) -> None:
    """End one program of the node by SIGTERM, after 5 s by SIGKILL, and wait until it has ended."""
    _order(layout, {"stop": name})


def part_pids(layout: Layout) -> Mapping[str, int]:
    """The pid out here of each program of the node that runs now."""
    supervisor = supervisor_pid(layout)
    if supervisor is None:
        return {}
    inside = _order(layout, {})["pids"]
    outside = {_pid_inside(pid): pid for pid in _children(supervisor)}
    return {name: outside[pid] for name, pid in inside.items() if pid in outside}


def kill_supervisor(layout: Layout) -> None:
    """SIGKILL it, and wait until the kernel has ended everything in its namespaces."""
    pid = supervisor_pid(layout)
    if pid is None:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor is of one process for good; the number might have gone to another just before.
        if supervisor_pid(layout) == pid:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _wait_for_end(descriptor, pid)
    finally:
        os.close(descriptor)


def _wait_for_end(descriptor: int, pid: int) -> None:
    # Process 1 of a namespace ends after all others there have.
    ended, _, _ = select.select([descriptor], [], [], _SECONDS_TO_DIE)
    if not ended:
        raise NodeFailed(f"process {pid}, the node's supervisor, does not end")


def _listening_pid(layout: Layout) -> int | None:
    """The pid of whoever listens on the socket, as the kernel tells it: it is never a stranger's."""
    try:
        with _connection(layout) as connection:
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except (FileNotFoundError, ConnectionError):
        return None
    return int(struct.unpack("3i", peer)[0])


def _recorded_pid(layout: Layout) -> int | None:
    """The pid that was written down, if that very process is still there: its socket goes before it does."""
    if not layout.record.exists():
        return None
    record = json.loads(layout.record.read_text())
    return record["pid"] if _birth(record["pid"]) == record["birth"] else None


def _birth(pid: int) -> str:
    """When the process began: with its pid, it means one process. Empty when there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The second field, the program's name, may hold blanks and brackets itself.
    fields = stat.rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _connection(layout: Layout) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_SECONDS_TO_OBEY)
        connection.connect(str(layout.control_socket))
    except OSError:
        connection.close()
        raise
    return connection


def _order(layout: Layout, order: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        with _connection(layout) as connection, connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(json.dumps(order) + "\n")
            stream.flush()
            answer = stream.readline()
    except OSError as error:
        raise NodeFailed(f"the node's supervisor does not answer ({error})") from error
    if not answer:
        raise NodeFailed(f"the node's supervisor failed at {order}; see {layout.logs / 'supervisor.log'}")
    obeyed: Mapping[str, Any] = json.loads(answer)
    return obeyed


def _children(pid: int) -> Sequence[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pid_inside(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    names = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return int(names.split()[-1])
