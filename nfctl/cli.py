"""`nfctl`: the commands that people type."""

import json
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml

from nfctl import show
from nfctl.client import Client, Refused, Unreachable
from nfctl.service import CannotServe, LocalService, find_programs, only_one
from nfctl.tools import ToolMissing
from shared import settings as settings_module
from shared.errors import BadSetting
from shared.settings import Settings

EXAMPLE = "simple-pipeline"
_USAGE = 2
_UNREACHABLE = 69  # EX_UNAVAILABLE of sysexits.h


def main() -> None:
    """Run a command; every expected error is one line on stderr."""
    try:
        commands(prog_name="nfctl")
    except BadSetting as error:
        _fail(str(error), _USAGE)
    except (CannotServe, ToolMissing, Refused) as error:
        _fail(str(error), 1)
    except Unreachable as error:
        _fail(str(error), _UNREACHABLE)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"nfctl: {message}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="NFCTL_URL", help="The service's address. [env: NFCTL_URL; default: of the settings]")
@click.option("--token", envvar="NFCTL_TOKEN", help="A bearer token. [env: NFCTL_TOKEN; default: of the settings]")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")
@click.version_option(package_name="nextflow-controller")
@click.pass_context
def commands(context: click.Context, url: str | None, token: str | None, as_json: bool) -> None:
    """Run Nextflow pipelines, one at a time, and watch them live."""
    settings = settings_module.load()
    tokens = settings.auth_tokens
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    client = Client(url or f"http://{host}:{settings.port}", token or (tokens[0] if tokens else None))
    context.obj = Session(settings, client, as_json)


class Session:
    """What a command works with."""

    def __init__(self, settings: Settings, client: Client, as_json: bool) -> None:
        self.settings = settings
        self.client = client
        self.as_json = as_json

    def answer(self, value: Any, text: str) -> None:
        """Print an answer, as JSON or for people."""
        click.echo(json.dumps(value) if self.as_json else text)

    def current_run(self, run_id: str | None) -> str:
        """The run that was named, else the active or last one. Raises Refused."""
        if run_id is not None:
            return run_id
        run = self.client.call("GET", "/status")["run"]
        if run is None:
            raise Refused("There is no run yet. Start one with `nfctl run PIPELINE`.")
        return str(run["run_id"])


@commands.command()
@click.option("--demo", is_flag=True, help="Also run the bundled example, and end with it when not on a terminal.")
@click.pass_obj
def up(session: Session, demo: bool) -> None:
    """Start the whole service on this machine and keep it running until Ctrl-C."""
    settings = session.settings
    click.echo(f"Data directory: {settings.data_dir}")
    with only_one(settings.data_dir):
        found = find_programs(settings, click.echo)
        service = LocalService(settings, found, click.echo)
        service.stop_when_told()
        code = 0
        try:
            click.echo("Starting Redis, worker, reconciler, web and Flower …")
            service.start()
            if not service.told_to_stop:
                _welcome(settings, service)
                code = _demo(session, service) if demo else 0
            if not demo or sys.stdout.isatty():
                service.watch()
        finally:
            _tell_what_goes_on(session.client)
            click.echo("Stopping …")
            service.stop()
            click.echo("Stopped.")
    sys.exit(code)


def _welcome(settings: Settings, service: LocalService) -> None:
    click.echo(f"\n  Watch and start runs   {service.url}/\n  API documentation      {service.url}/docs/")
    if settings.flower_port:
        click.echo(f"  Celery's Flower        http://127.0.0.1:{settings.flower_port}/")
    click.echo("\nReady. Ctrl-C stops the service.\n")


def _demo(session: Session, service: LocalService) -> int:
    """Run the bundled example; a Ctrl-C meanwhile cancels it. Returns the run's exit code."""
    client = session.client
    run_id = client.submit({"pipeline": EXAMPLE, "when_busy": "queue", "triggered_by": "nfctl up --demo"})["run_id"]
    click.echo(f"Running the example as {run_id}:")
    codes: list[int] = []
    follower = threading.Thread(target=lambda: codes.append(follow_run(client, run_id)), daemon=True)
    follower.start()
    service.watch(until=lambda: not follower.is_alive())
    if codes:
        return codes[0]
    click.echo("Cancelling the example …")
    client.call("DELETE", "/cancel", params={"run_id": run_id})
    follower.join(session.settings.cancel_grace_seconds + 10)
    return codes[0] if codes else 1


def _tell_what_goes_on(client: Client) -> None:
    try:
        run = client.call("GET", "/active")["run"]
    except (Refused, Unreachable):
        return
    if run is not None:
        click.echo(f"Run {run['run_id']} goes on without the service; the next `nfctl up` takes it up again.")


def follow_run(client: Client, run_id: str, *, as_json: bool = False) -> int:
    """Print a run's log and progress as they come, to its end; returns its exit code."""
    shown: tuple[Any, ...] = ()
    for frame in client.follow(run_id):
        if as_json:
            click.echo(json.dumps(frame))
            if frame["type"] == "complete":
                return _exit_code(frame["data"]["run"])
            continue
        data = frame["data"]
        match frame["type"]:
            case "log":
                for line in data["lines"]:
                    click.echo(line["message"])
            case "progress":
                counts = tuple(
                    process["succeeded"] + process["cached"] + process["failed"] for process in data["processes"]
                )
                if (data["percent"], counts) != shown:
                    shown = (data["percent"], counts)
                    click.echo(show.coloured(show.progress_line(data), "running"))
            case "error":
                if data.get("hint"):
                    click.echo(show.coloured(f"Hint: {data['hint']}", data["level"]))
            case "status" if frame["id"] is not None and data["status"] in (
                "queued",
                "starting",
                "cancelling",
            ):
                click.echo(show.coloured(f"The run is {data['status']}.", data["status"]))
            case "complete":
                _show_end(data)
                return _exit_code(data["run"])
    return 1


def _show_end(data: dict[str, Any]) -> None:
    took = show.seconds(data["duration_seconds"])
    text = f"{data['run']['run_id']} {data['status']} after {took}: {data['run']['message']}"
    click.echo(show.coloured(text, data["status"]))


def _exit_code(run: dict[str, Any]) -> int:
    return 0 if run["status"] == "succeeded" else int(run["exit_code"] or 1)


@commands.command()
@click.argument("pipeline")
@click.option(
    "--param",
    "-p",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter; JSON values keep their type.",
)
@click.option("--params-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON or YAML.")
@click.option("--revision", "-r", help="Branch, tag or commit.")
@click.option("--profile", help="Configuration profiles, with commas between.")
@click.option("--when-busy", type=click.Choice(["attach", "queue", "reject"]), default="queue", show_default=True)
@click.option("--follow", is_flag=True, help="Print its log until it ends, and exit with its code.")
@click.pass_obj
def run(
    session: Session,
    pipeline: str,
    params: tuple[str, ...],
    params_file: Path | None,
    revision: str | None,
    profile: str | None,
    when_busy: str,
    follow: bool,
) -> None:
    """Run PIPELINE: a path, a name in the catalog, owner/repository, or a Git URL."""
    request: dict[str, Any] = {
        "pipeline": str(Path(pipeline).absolute()) if Path(pipeline).exists() else pipeline,
        "parameters": _parameters(params, params_file),
        "when_busy": when_busy,
        "triggered_by": "nfctl",
    }
    request |= {name: value for name, value in (("revision", revision), ("profile", profile)) if value is not None}
    _submit(session, request, follow)


def _parameters(params: tuple[str, ...], params_file: Path | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if params_file is not None:
        try:
            loaded = yaml.safe_load(params_file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{params_file} is neither JSON nor YAML: {error}") from error
        if not isinstance(loaded, dict):
            raise click.BadParameter(f"{params_file} must hold an object of parameters.")
        values |= loaded
    for param in params:
        key, equals, text = param.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{param!r} is not KEY=VALUE.")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _submit(session: Session, request: dict[str, Any], follow: bool) -> None:
    answer = session.client.submit(request)
    if session.as_json and not follow:
        click.echo(json.dumps(answer))
    elif not session.as_json:
        click.echo(_submitted(answer))
    if follow:
        sys.exit(follow_run(session.client, answer["run_id"], as_json=session.as_json))


def _submitted(answer: dict[str, Any]) -> str:
    if answer["attached"]:
        return f"Run {answer['run_id']} is active; attached to it instead."
    if answer.get("queue_position"):
        return f"Run {answer['run_id']} waits at place {answer['queue_position']} of the queue."
    return f"Run {answer['run_id']} is {answer['status']}. Watch it with: nfctl logs {answer['run_id']} --follow"


@commands.command()
@click.argument("run_id", required=False)
@click.pass_obj
def status(session: Session, run_id: str | None) -> None:
    """Show the active run, or the last one, or RUN_ID."""
    answer = session.client.call("GET", "/status", params={"run_id": run_id} if run_id else None)
    if answer["run"] is None:
        session.answer(answer, "No run yet. Start one with: nfctl run PIPELINE")
        return
    info = answer["run"]
    lines = [f"{info['run_id']}  {show.coloured(info['status'], info['status'])}  {info['pipeline']}"]
    lines += [info["message"]] if info["message"] else []
    lines += [show.progress_line(answer["progress"])] if answer["progress"] else []
    lines += [f"{entry['position']}. in the queue: {entry['run_id']}  {entry['pipeline']}" for entry in answer["queue"]]
    session.answer(answer, "\n".join(lines))


@commands.command()
@click.argument("run_id", required=False)
@click.option("--follow", is_flag=True, help="Go on until the run ends, and exit with its code.")
@click.pass_obj
def logs(session: Session, run_id: str | None, follow: bool) -> None:
    """Print the log of RUN_ID, or of the active or last run."""
    run_id = session.current_run(run_id)
    if follow:
        sys.exit(follow_run(session.client, run_id, as_json=session.as_json))
    text = session.client.text(f"/runs/{run_id}/logs")
    session.answer({"run_id": run_id, "lines": text.splitlines()}, text.removesuffix("\n"))


@commands.command()
@click.argument("run_id", required=False)
@click.pass_obj
def cancel(session: Session, run_id: str | None) -> None:
    """Cancel RUN_ID, or the active run."""
    answer = session.client.call("DELETE", "/cancel", params={"run_id": run_id} if run_id else None)
    session.answer(answer, answer["detail"])


@commands.command()
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--status", "wanted", help="Only runs of this status.")
@click.pass_obj
def history(session: Session, limit: int, wanted: str | None) -> None:
    """List runs, newest first."""
    query = {"limit": limit} | ({"status": wanted} if wanted else {})
    answer = session.client.call("GET", "/history", params=query)
    rows = [row | {"took": show.seconds(row["duration_seconds"])} for row in answer]
    columns = [("run_id", "RUN"), ("status", "STATUS"), ("pipeline", "PIPELINE"), ("started_at", "STARTED")]
    session.answer(answer, show.table(rows, [*columns, ("took", "TOOK"), ("message", "MESSAGE")]))


@commands.command()
@click.argument("run_id", required=False)
@click.pass_obj
def tasks(session: Session, run_id: str | None) -> None:
    """List the Nextflow tasks of RUN_ID, or of the active or last run."""
    answer = session.client.call("GET", f"/runs/{session.current_run(run_id)}/tasks")
    rows = [
        task
        | {
            "took": show.seconds(task["realtime_ms"] / 1000 if task.get("realtime_ms") is not None else None),
            "memory": show.size(task.get("peak_rss_bytes")),
        }
        for task in answer["tasks"]
    ]
    columns = [
        ("hash", "HASH"),
        ("name", "TASK"),
        ("status", "STATUS"),
        ("exit", "EXIT"),
        ("attempt", "ATTEMPT"),
    ]
    session.answer(answer, show.table(rows, [*columns, ("took", "TOOK"), ("memory", "MEMORY")]))


@commands.command()
@click.argument("run_id")
@click.option("--follow", is_flag=True, help="Print its log until it ends, and exit with its code.")
@click.pass_obj
def resume(session: Session, run_id: str, follow: bool) -> None:
    """Run RUN_ID again without the tasks that are done."""
    _submit(session, {"resume": run_id, "when_busy": "queue", "triggered_by": "nfctl"}, follow)
