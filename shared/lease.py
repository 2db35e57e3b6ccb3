"""The lease on a run: one supervisor at a time, and a fence that shuts out any earlier one."""

from dataclasses import dataclass

from shared import keys
from shared.errors import Fenced, RunNotFound
from shared.redis_client import Client, script, store_errors
from shared.runs import RunStatus

LEASE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Held:
    """A lease in hand: the fence that every write must show, and the run's status at that moment."""

    fence: int
    status: RunStatus


class Leases:
    """Takes, renews and gives back leases. Every method raises StoreAway when Redis does not answer."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._script = script(redis, "lease")

    def acquire(self, run_id: str) -> Held | None:
        """The lease, or None while another supervisor holds it. Raises RunNotFound."""
        return self._call(run_id, "acquire", 0)

    def renew(self, run_id: str, fence: int) -> Held:
        """Hold on for another `LEASE_SECONDS` and learn the run's status. Raises Fenced or RunNotFound."""
        held = self._call(run_id, "renew", fence)
        assert held is not None  # noqa: S101 - only an acquisition can find it held
        return held

    def release(self, run_id: str, fence: int) -> None:
        """Give the lease back at once, so that the next supervisor need not wait. Raises Fenced or RunNotFound."""
        self._call(run_id, "release", fence)

    def held(self, run_id: str) -> bool:
        """Whether anyone supervises the run."""
        with store_errors():
            return bool(self._redis.exists(keys.lease(run_id)))

    def _call(self, run_id: str, operation: str, fence: int) -> Held | None:
        with store_errors():
            outcome, *rest = self._script(
                keys=[keys.lease(run_id), keys.run(run_id)], args=[operation, fence, LEASE_SECONDS * 1000]
            )
        match outcome:
            case b"held":
                return None
            case b"fenced":
                raise Fenced(run_id)
            case b"missing":
                raise RunNotFound(run_id)
            case _:
                return Held(int(rest[0]), RunStatus(rest[1].decode()))
