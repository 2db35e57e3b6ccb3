"""Ends of runs for tests and benches that only need a run to be over."""

from shared.runs import Run, RunStatus
from shared.store import Store


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
