"""How many sockets are open over all web processes, and the bound on them."""

import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from shared import keys
from shared.redis_client import Client, store_errors

BEAT_SECONDS = 5.0
_STALE_SECONDS = 15
_LUA = (Path(__file__).parent / "presence.lua").read_text()


class Presence:
    """Counts this process's sockets together with those of the others."""

    def __init__(self, redis: Client, limit: int) -> None:
        self._redis = redis
        self._script = redis.register_script(_LUA)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._limit = limit
        self._mine = 0
        self._lock = threading.Lock()
        self.total = 0

    def join(self) -> bool:
        """Count one more socket, unless that is more than may be. Raises StoreAway."""
        with self._lock:
            admitted, total = self._tell(self._mine + 1, self._limit)
            self._mine += 1 if admitted else 0
            self.total = total if admitted else total - 1
        return admitted

    def leave(self) -> None:
        """Count one socket less; the next beat tells the others."""
        with self._lock:
            self._mine -= 1
            self.total = max(0, self.total - 1)

    def beat(self) -> None:
        """Tell the others how many there are here, and that events are relayed to them. Raises StoreAway."""
        with self._lock:
            _, self.total = self._tell(self._mine, 0)

    def part(self) -> None:
        """This process relays no more. Raises StoreAway."""
        with store_errors():
            self._redis.hdel(keys.VIEWERS, self._name)

    def look(self) -> tuple[int, bool]:
        """How many sockets there are in all, and whether any process relays events. Raises StoreAway."""
        with store_errors():
            told = self._redis.hvals(keys.VIEWERS)
        return counted(told)

    def _tell(self, count: int, limit: int) -> tuple[bool, int]:
        with store_errors():
            admitted, total = self._script(
                keys=[keys.VIEWERS], args=[self._name, count, int(time.time()), _STALE_SECONDS, limit]
            )
        return bool(admitted), int(total)


def counted(told: Sequence[bytes]) -> tuple[int, bool]:
    """What `look` tells, of what the processes said last."""
    now, total, relayed = time.time(), 0, False
    for count, at in (map(int, entry.split()) for entry in told):
        total += count if at > now - _STALE_SECONDS else 0
        relayed |= at > now - 2 * BEAT_SECONDS
    return total, relayed
