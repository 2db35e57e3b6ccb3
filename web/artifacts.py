"""The files a run left in the data directory: Nextflow's reports, and what the pipeline published."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Response, send_file
from werkzeug.exceptions import NotFound

from shared.places import RunPlaces
from shared.runs import Run
from web.status import API

MOST = 500


def list_artifacts(run: Run, places: RunPlaces) -> dict[str, Any]:
    """`ArtifactsAnswer`."""
    run_id = run.run_id
    found: list[dict[str, Any]] = []
    # Of one that never began, what is in its session's directory is the run's that it resumes.
    for kind in ("report", "output") if run.started_at else ():
        root, allowed = _roots(kind, places)
        for path in _files(root, allowed):
            name = path.relative_to(root).as_posix()
            url = f"{API}/runs/{run_id}/artifacts/{kind}/{quote(name)}"
            with suppress(FileNotFoundError):  # it went just now
                found.append({"name": name, "kind": kind, "size": path.stat().st_size, "url": url})
            if len(found) > MOST:
                return {"run_id": run_id, "artifacts": found[:MOST], "truncated": True}
    return {"run_id": run_id, "artifacts": found, "truncated": False}


def send_artifact(run: Run, places: RunPlaces, kind: str, name: str) -> Response:
    """One file. A page in it may run its scripts, but not as a page of this service. Raises NotFound."""
    root, allowed = _roots(kind, places)
    path = root / name
    if not run.started_at or ".." in path.parts or "\0" in name or not _may_be_shown(path, allowed):
        raise NotFound("No such file is kept for this run.")
    response = send_file(path, conditional=True)
    response.headers["Content-Security-Policy"] = "sandbox allow-scripts"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _roots(kind: str, places: RunPlaces) -> tuple[Path, Path]:
    """Where files of a kind lie, and the directory that they must really be in: outputs are often links to work."""
    return (places.reports, places.reports) if kind == "report" else (places.results, places.launch)


def _files(root: Path, allowed: Path) -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = Path(directory) / name
            if _may_be_shown(path, allowed):
                yield path


def _may_be_shown(path: Path, allowed: Path) -> bool:
    # Unlike Path.is_file, it takes a name of any length.
    return os.path.isfile(path) and path.resolve().is_relative_to(allowed.resolve())  # noqa: PTH113
