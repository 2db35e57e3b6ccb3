"""The connection to Redis, and the one place where its errors become ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError, TimeoutError
from redis.retry import Retry

from shared.errors import StoreAway

# A command is tried once more at once: after a restart of Redis the pool holds dead connections.
# Not more often, and never with a pause, because the caller knows better how patient to be.
_RETRY = Retry(NoBackoff(), 1)
_AWAY = re.compile(
    r"(?:^|[ -])(?:OOM|LOADING|MISCONF|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|NOAUTH|WRONGPASS|NOPERM"
    r"|BUSY) "
    r"|^(?:ERR )?Protocol error: unauthenticated "  # what a long command meets before the password was given
)
# redis-py types every reply as one that may have to be awaited; ours never has.
Client = Any
_LUA = Path(__file__).parent / "lua"


def connect(url: str, *, timeout: float = 3.0) -> Client:
    """A client with a connection pool; every call ends within about `timeout` seconds, twice."""
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        health_check_interval=0,
        retry=_RETRY,
        decode_responses=False,
    )


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn every sign that Redis cannot do its work now into StoreAway."""
    try:
        yield
    except (ConnectionError, TimeoutError, ReadOnlyError, OSError) as error:
        raise StoreAway("Redis does not answer.") from error
    except ResponseError as error:
        # Redis 6 wraps what a script met: "Error running script … -READONLY You can't write …".
        # Redis 7 says it plainly, and then redis-py has cut the code off the words.
        said = f"{error.status_code} {error}" if error.status_code else str(error)
        if _AWAY.search(said):
            raise StoreAway(f"Redis cannot work: {said}") from error
        raise


def script(redis: Client, name: str) -> Script:
    """The Lua script of that name, after the functions that all of them share."""
    text = (_LUA / "events.lua").read_text() + (_LUA / f"{name}.lua").read_text()
    made: Script = redis.register_script(text)
    return made
