"""How things stand, in one answer: the run, its progress, the end of its log, the queue."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shared import times
from shared.runs import RunStatus
from shared.store import Kept, Standing, Store, Which
from web.presence import counted

API = "/api/v1/pipeline"
_PREVIEW_LINES = 20


def stream_url(run_id: str | None) -> str:
    """Where the socket of a run is; relative, because only the client knows by which name it came."""
    return f"{API}/stream" + (f"?run_id={run_id}" if run_id else "")


def status_answer(store: Store, of: str | Which) -> dict[str, Any]:
    """`StatusAnswer` for a run, or for none. Raises RunNotFound."""
    standing = store.standing(of, _PREVIEW_LINES)
    kept = standing.kept
    connected_clients, _ = counted(standing.viewers)
    return {
        "active": kept is not None and _at_work(kept),
        "run": kept.run.info() if kept else None,
        "progress_percent": percent(kept) if kept else 0,
        "progress": kept.progress if kept else None,
        "log_preview": _log_lines(standing.preview)[-_PREVIEW_LINES:],
        "websocket_url": stream_url(kept.run.run_id if kept else None),
        "connected_clients": connected_clients,
        "last_update": times.to_text(times.now()),
        "queue": queue(standing.waiting),
    }


def snapshot(standing: Standing, connected_clients: int) -> dict[str, Any]:
    """The `data` of a socket's first frame."""
    kept = standing.kept
    common = {"first_id": standing.first_id, "connected_clients": connected_clients, "queue": queue(standing.waiting)}
    if kept is None:
        return {
            "status": "idle",
            "progress_percent": 0,
            "progress": None,
            "last_id": 0,
            **common,
        }
    return kept.run.info() | {
        "progress_percent": percent(kept),
        "progress": kept.progress,
        "last_id": kept.last_id,
        **common,
    }


def percent(kept: Kept) -> int:
    """How far a run is, in percent."""
    return int(kept.progress["percent"]) if kept.progress else 100 * (kept.run.status is RunStatus.SUCCEEDED)


def queue(waiting: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The waiting runs with their places."""
    return [{**entry, "position": place} for place, entry in enumerate(waiting, start=1)]


def _log_lines(newest_first: Sequence[bytes]) -> list[str]:
    return [line["message"] for body in reversed(newest_first) for line in orjson.loads(body)["data"]["lines"]]


def _at_work(kept: Kept) -> bool:
    return not kept.run.status.final and kept.run.status is not RunStatus.QUEUED
