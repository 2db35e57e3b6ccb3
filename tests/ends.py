"""Ends of runs, for tests and benches that only need a run to be over, and what waits."""

from shared.runs import Run, RunStatus
from shared.store import Store, Which


def finish(
    store: Store,
    run_id: str,
    status: RunStatus,
    *,
    message: str | None = None,
    exit_code: int | None = None,
    fence: int | None = None,
) -> Run:
    """End a run with that status, whatever it is now; see `Store.end`."""
    return store.end(run_id, lambda _: (status, message), exit_code=exit_code, fence=fence)


def queued(store: Store) -> list[str]:
    """The first hundred waiting runs, the next one first."""
    return [entry["run_id"] for entry in store.standing(Which.NONE).waiting]
