"""The port of the web server, which cuts nobody off when it is closed."""

import os
import socket
import struct
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from pathlib import Path

import gevent
from gevent.server import StreamServer

_HALF_OPEN_SECONDS = 0.1
# systemd, say, has given gunicorn its port, and keeps it open for the next one.
_is_given = "LISTEN_FDS" in os.environ
_SO_ATTACH_FILTER = 26  # Linux' asm-generic/socket.h, which Python's socket does not name
# Classic BPF over a TCP header: load the byte of the flags, and where SYN is among them drop the packet.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


class LastServed(StreamServer):
    """Serves one connection after another, and before it closes also those that are there already.

    They would be cut off otherwise. More than its pool has room for are.
    """

    max_accept = 1

    def close(self) -> None:
        """Serve no more than are here already."""
        with suppress(OSError):  # no descriptor is left for them, say
            while not (self.closed or self.full()):
                try:
                    accepted = self.do_read()
                except ConnectionError:  # that one has gone meanwhile
                    continue
                if accepted is None:
                    break  # type: ignore[unreachable]  # the stub leaves out that there may be nobody
                self.do_handle(*accepted)
        super().close()


class Door(LastServed):
    """Serves a port. The kernel lets in some before anybody accepts them, and resets those when a port is closed.

    When gunicorn has closed the port itself, so that nobody serves it after this, the kernel lets in no more before
    that (on Linux). Whoever comes then is not answered: the client asks again a second later, and is refused, or
    let in by the service that has started meanwhile.
    """

    def close(self) -> None:
        """Let nobody in any more, serve who is here, and close the port."""
        if not (self.closed or _is_given or _is_open_in(os.getppid(), self.socket)):
            _let_nobody_in(self.socket)
            gevent.sleep(_HALF_OPEN_SECONDS)  # those whose handshake is under way
        super().close()


def _is_open_in(pid: int, listener: socket.socket) -> bool:
    """Whether that process has this listener open too; True where that cannot be seen."""
    name = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
    try:
        return any(_leads_to(entry, name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return True


def _leads_to(entry: Path, name: str) -> bool:
    with suppress(FileNotFoundError):  # closed meanwhile
        return str(entry.readlink()) == name
    return False


def _let_nobody_in(listener: socket.socket) -> None:
    program = create_string_buffer(_NO_SYN)
    with suppress(OSError):  # where it is not allowed, only a moment is left in which somebody can be cut off
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_NO_SYN) // 8, addressof(program))
        )
