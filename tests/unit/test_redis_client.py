"""Which replies of Redis mean that it cannot work now, whichever version says them."""

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from shared.errors import StoreAway
from shared.redis_client import store_errors

# As 6.2 and 7.0 wrote them; redis-py makes exceptions of them in ways of its own.
AWAY = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "ERR Error running script (call to f_1): @user_script:63: @user_script: 63: -OOM command not allowed when used "
    "memory > 'maxmemory'.",
    "OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:63.",
    "NOAUTH Authentication required.",
    "ERR Protocol error: unauthenticated multibulk length",
    "ERR Protocol error: unauthenticated bulk length",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
]


def error_of(reply: str) -> Exception:
    error: Exception = BaseParser.parse_error(reply)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize("reply", AWAY)
def test_a_redis_that_cannot_work_is_away(reply: str) -> None:
    with pytest.raises(StoreAway), store_errors():
        raise error_of(reply)


@pytest.mark.parametrize("reply", ["ERR wrong number of arguments for 'get' command", "WRONGTYPE Operation against"])
def test_a_mistake_of_ours_is_no_outage(reply: str) -> None:
    with pytest.raises(ResponseError), store_errors():
        raise error_of(reply)
