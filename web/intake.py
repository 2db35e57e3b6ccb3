"""From a request to a run: fills in what a resumed run lends, and gives ids."""

from datetime import datetime
from typing import Any

from shared.runs import Run, new_run_id, new_session_id
from shared.store import Store
from web.schemas import InvalidRequest, RunRequest

_LENT = ("pipeline", "revision", "profile", "parameters", "workdir", "config")


def make_run(store: Store, wanted: RunRequest, at: datetime) -> Run:
    """The run that a request asks for. Raises InvalidRequest when what it resumes is not there or still at work."""
    values: dict[str, Any] = {name: getattr(wanted, name) for name in _LENT}
    session_id, may_be_new = new_session_id(), False
    if wanted.resumes_session:
        session_id = str(wanted.resume).lower()
    elif wanted.resume is not None:
        earlier = _resumable(store, wanted.resume)
        session_id, may_be_new = earlier.session_id, True
        for name in _LENT:
            if values[name] is None:
                values[name] = getattr(earlier, name)
    values["parameters"] = values["parameters"] or {}
    return Run(
        run_id=new_run_id(at),
        session_id=session_id,
        resumes=wanted.resume is not None,
        session_may_be_new=may_be_new,
        queued_at=at,
        triggered_by=wanted.triggered_by,
        **values,
    )


def _resumable(store: Store, run_id: str) -> Run:
    earlier = store.get(run_id).run
    if not earlier.status.final:
        raise InvalidRequest([{"loc": ["resume"], "msg": f"Run {run_id} has not ended; cancel it or wait"}])
    return earlier
