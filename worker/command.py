"""The Nextflow command of a run: pure functions from the record to arguments, files and environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from shared.places import RunPlaces
from shared.runs import Run

TRACE_FIELDS = (
    "task_id",
    "hash",
    "name",
    "process",
    "tag",
    "status",
    "exit",
    "attempt",
    "native_id",
    "submit",
    "start",
    "complete",
    "realtime",
    "peak_rss",
    "cpus",
    "memory",
    "error_action",
    "workdir",
)
_REMOTE = re.compile(r"\w+://|git@")


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute: arguments (no shell reads them), extra environment, and files to write first."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    files: Mapping[Path, bytes]


def build(run: Run, nextflow: str, places: RunPlaces, pipeline: str, *, settled: str = "") -> Command:
    """The command of a run. Text of the user becomes file content or the value of an option, never an option.

    `pipeline` is what Nextflow is to run; `settled` is configuration that the user's cannot change.
    """
    user_config, own_config = places.settings / "user.config", places.settings / "service.config"
    parameters = places.settings / "parameters.json"
    files = {parameters: orjson.dumps(dict(run.parameters)), own_config: (_config(places) + settled).encode()}
    configs = ["-c", str(own_config)]
    if run.config:
        files[user_config] = run.config.encode()
        # The later file wins, and the trace is how progress is known.
        configs = ["-c", str(user_config), *configs]
    arguments = [nextflow, "-log", str(places.directory / "nextflow.log"), "run", pipeline]
    arguments += [*configs, "-name", run.run_id, "-params-file", str(parameters), "-ansi-log", "false"]
    arguments += ["-work-dir", run.workdir or str(places.launch / "work")]
    for option, value in (("-r", run.revision), ("-profile", run.profile)):
        arguments += [option, value] if value else []
    arguments += ["-resume", run.session_id] if run.resumes else []
    return Command(tuple(arguments), _environment(run), places.launch, files)


def pipeline_argument(pipeline: str, pipelines_dir: Path) -> str:
    """An absolute path for what lies in the pipelines directory, else the name as it is, for Nextflow to find."""
    found = local_pipeline(pipeline, pipelines_dir)
    return str(found) if found else pipeline


def local_pipeline(pipeline: str, pipelines_dir: Path) -> Path | None:
    """What a relative name means in the pipelines directory; None when there is nothing of that name."""
    if _REMOTE.match(pipeline) or Path(pipeline).is_absolute():
        return None
    for candidate in (pipelines_dir / pipeline, pipelines_dir.parent / pipeline):
        if os.path.exists(candidate):  # noqa: PTH110 - unlike Path.exists, it takes a name of any length
            return candidate.absolute()
    return None


def _environment(run: Run) -> dict[str, str]:
    environment = {
        "NXF_ANSI_LOG": "false",
        "NXF_DISABLE_CHECK_LATEST": "true",
        # Marks every process of the run, however it detaches itself, so that all can be found at its end.
        "NFCTL_RUN_ID": run.run_id,
    }
    return environment if run.resumes else environment | {"NXF_UUID": run.session_id}


def _config(places: RunPlaces) -> str:
    reports = places.reports
    return f"""\
trace {{
    enabled = true
    overwrite = true
    raw = true
    file = '/dev/stdout'
    fields = '{",".join(TRACE_FIELDS)}'
}}
report {{
    enabled = true
    overwrite = true
    file = '{quoted(reports / "report.html")}'
}}
timeline {{
    enabled = true
    overwrite = true
    file = '{quoted(reports / "timeline.html")}'
}}
"""


def quoted(value: object) -> str:
    """The text as it stands between single quotes in Nextflow's configuration."""
    return str(value).replace("\\", "\\\\").replace("'", "\\'")
