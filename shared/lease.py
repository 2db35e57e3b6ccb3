"""The lease on a run: one supervisor at a time, and a fence that shuts out any earlier one."""

from dataclasses import dataclass

from shared import keys
from shared.errors import Fenced, RunNotFound
from shared.lifetime import has_ended, own_name
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
        """Whether anyone supervises the run. The lease of a process that is seen to have ended counts no more."""
        with store_errors():
            holder = self._redis.get(keys.lease(run_id))
        if holder is None:
            return False
        if not has_ended(holder.decode()):
            return True
        # By compare-and-delete: somebody else may have it by now.
        self._call(run_id, "bury", 0, holder.decode())
        return False

    def _call(self, run_id: str, operation: str, fence: int, holder: str = "") -> Held | None:
        arguments: list[str | int] = [operation, fence, LEASE_SECONDS * 1000, holder or own_name()]
        with store_errors():
            outcome, *rest = self._script(keys=[keys.lease(run_id), keys.run(run_id)], args=arguments)
        match outcome:
            case b"held":
                return None
            case b"fenced":
                raise Fenced(run_id)
            case b"missing":
                raise RunNotFound(run_id)
            case _:
                return Held(int(rest[0]), RunStatus(rest[1].decode()))
