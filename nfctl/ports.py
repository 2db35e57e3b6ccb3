"""Ports of this machine for servers that somebody starts in a moment."""

import random
import socket

# Below what a kernel gives to those who name no port (from 32768, or 49152), and below what a cluster gives to its
# services (from 30000): one that was free stays so until its server has come, or comes back.
_PORTS = range(10_000, 30_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now, at random. Raises OSError when there is none."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of 127.0.0.1 from {_PORTS.start} to {_PORTS.stop - 1} is free")
