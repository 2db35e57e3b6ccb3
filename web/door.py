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
_SO_ATTACH_FILTER = 26  # Linux' asm-generic/socket.h, which Python's socket does not name
# Classic BPF over a TCP header: load the byte of the flags, and where SYN is among them drop the packet.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
)


class Door(StreamServer):
    """Serves a port, and before that is closed also those whom only the kernel has let in, or it would reset them.

    When gunicorn has closed the port itself, so that nobody serves it after this, the kernel lets in no more before
    that (on Linux). Whoever comes then is not answered: the client asks again a second later, and is refused, or
    let in by the service that has started meanwhile.
    """

    max_accept = 1

    def close(self) -> None:
        """Serve no more than are here already."""
        if not self.closed and not _is_open_in(os.getppid(), self.socket):
            _let_nobody_in(self.socket)
            gevent.sleep(_HALF_OPEN_SECONDS)  # those whose handshake is under way
        while not (self.closed or self.full()) and (accepted := self.do_read()) is not None:
            self.do_handle(*accepted)
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
