"""`nfctl`: the commands that people type."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from nfctl import show
from nfctl.client import Client, Refused, Unreachable
from nfctl.follow import INTERRUPTED, follow_run
from nfctl.request import named, parameters, workflows
from nfctl.service import CannotServe, local_url
from nfctl.tools import ToolMissing
from nfctl.up import serve
from shared import settings as settings_module
from shared.errors import BadSetting
from shared.events import EventType
from shared.runs import RunStatus
from shared.settings import Settings

_USAGE = 2
# Some way on there is a line, if the run has said any.
_FIRST_EVENTS = 50
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


class _Commands(click.Group):
    """A command that Ctrl-C ends exits as one: click's own answer is 1, as for a failure."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="NFCTL_URL", help="The service's address. [env: NFCTL_URL; default: of the settings]")
@click.option("--token", envvar="NFCTL_TOKEN", help="A bearer token. [env: NFCTL_TOKEN; default: of the settings]")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")
@click.version_option(package_name="nextflow-controller")
@click.pass_context
def commands(context: click.Context, url: str | None, token: str | None, as_json: bool) -> None:
    """Run Nextflow pipelines, one at a time, and watch them live."""
    settings = settings_module.load()
    client = Client(url or local_url(settings), token or next(iter(settings.auth_tokens), None))
    context.obj = Session(settings, client, as_json)


def _json_asked(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.obj.as_json = True


# Where people look for it: after the command too.
json_option = click.option(
    "--json", is_flag=True, expose_value=False, callback=_json_asked, help="Answer in JSON, for scripts."
)


class Session:
    """What a command works with."""

    def __init__(self, settings: Settings, client: Client, as_json: bool) -> None:
        self.settings = settings
        self.client = client
        self.as_json = as_json

    def answer(self, value: Any, text: str) -> None:
        """Print an answer, as JSON or for people."""
        click.echo(json.dumps(value) if self.as_json else text)

    def ended_run(self, run_id: str | None) -> str:
        """The run that was named, else the newest of those that have ended. Raises Refused."""
        if run_id is not None:
            return run_id
        if (active := self.client.call("GET", "/active")["run"]) and active["status"] == RunStatus.CANCELLING:
            raise Refused(f"{active['run_id']} is still being cancelled. Resume it when that is done, or name a run.")
        runs = self.client.call("GET", "/history", params={"limit": 100})
        ended = next((run["run_id"] for run in runs if RunStatus(run["status"]).final), None)
        if ended is None:
            raise Refused("No run has ended yet.")
        return str(ended)

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
    sys.exit(serve(session.settings, demo=demo))


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
@click.option("--follow", "-f", is_flag=True, help="Print its log until it ends, and exit with its code.")
@json_option
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
        "pipeline": named(pipeline, session.client),
        "parameters": parameters(params, params_file),
        "when_busy": when_busy,
        "triggered_by": "nfctl",
    }
    request |= {name: value for name, value in (("revision", revision), ("profile", profile)) if value is not None}
    _submit(session, request, follow)


def _submit(session: Session, request: dict[str, Any], follow: bool) -> None:
    answer = session.client.submit(request)
    if session.as_json and not follow:
        click.echo(json.dumps(answer))
    elif not session.as_json:
        click.echo(_submitted(answer, request.get("resume"), watched=follow))
    if follow:
        sys.exit(follow_run(session.client, answer["run_id"], as_json=session.as_json))


def _submitted(answer: dict[str, Any], resumed: str | None, *, watched: bool) -> str:
    if answer["attached"]:
        return f"Run {answer['run_id']} is active; attached to it instead."
    place = f" at place {answer['queue_position']}" if answer.get("queue_position") else ""
    watch = "" if watched else f" Watch it with: {show.called()} logs {answer['run_id']} --follow"
    what = f", which resumes {resumed}," if resumed else ""
    return f"Run {answer['run_id']}{what} is {answer['status']}{place}.{watch}"


@commands.command()
@click.argument("run_id", required=False)
@json_option
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
    lines += [show.progress_line(answer["progress"])] if (answer["progress"] or {}).get("processes") else []
    queue = answer["queue"] if run_id is None or info["status"] == "queued" else []
    lines += [f"{entry['position']}. in the queue: {entry['run_id']}  {entry['pipeline']}" for entry in queue]
    session.answer(answer, "\n".join(lines))


@commands.command()
@click.argument("run_id", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends, and exit with its code.")
@click.option("--tail", "-n", type=click.IntRange(min=1), metavar="LINES", help="Only so many of the newest lines.")
@json_option
@click.pass_obj
def logs(session: Session, run_id: str | None, follow: bool, tail: int | None) -> None:
    """Print the log of RUN_ID, or of the active or last run."""
    run_id = session.current_run(run_id)
    if follow:
        sys.exit(follow_run(session.client, run_id, as_json=session.as_json, tail=tail))
    text = session.client.text(f"/runs/{run_id}/logs{f'?tail={tail}' if tail else ''}")
    lines = text.split("\n")[:-1]
    if not lines:
        click.echo(f"Run {run_id} has said nothing.", err=True)
    elif (not tail or len(lines) < tail) and _begins_late(session.client, run_id):
        click.echo(show.gap(run_id), err=True)
    if lines or session.as_json:
        session.answer({"run_id": run_id, "lines": lines}, text.removesuffix("\n"))


def _begins_late(client: Client, run_id: str) -> bool:
    """Whether the first line that is kept of a run is not its first."""
    with suppress(Refused, Unreachable):  # the lines are there all the same
        kept = client.call("GET", f"/runs/{run_id}/events", params={"limit": _FIRST_EVENTS})["events"]
        first = next((event for event in kept if event["type"] == EventType.LOG), None)
        return first is not None and first["data"]["lines"][0]["line"] > 1
    return False


@commands.command()
@click.argument("run_id", required=False)
@json_option
@click.pass_obj
def cancel(session: Session, run_id: str | None) -> None:
    """Cancel RUN_ID, or the active run."""
    answer = session.client.call("DELETE", "/cancel", params={"run_id": run_id} if run_id else None)
    session.answer(answer, f"{answer['run_id']}: {answer['detail']}" if answer["run_id"] else answer["detail"])


@commands.command()
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--before", metavar="RUN_OR_TIME", help="Only runs that were submitted before that one, or that time.")
@click.option(
    "--status", "wanted", type=click.Choice([status.value for status in RunStatus]), help="Only runs of this status."
)
@json_option
@click.pass_obj
def history(session: Session, limit: int, before: str | None, wanted: str | None) -> None:
    """List runs, newest first; with --before, page by page."""
    query = {"limit": limit} | {name: value for name, value in (("before", before), ("status", wanted)) if value}
    answer = session.client.call("GET", "/history", params=query)
    rows = [
        row | {"took": show.seconds(row["duration_seconds"]), "message": show.brief(row["message"] or "")}
        for row in answer
    ]
    columns = [("run_id", "RUN"), ("status", "STATUS"), ("pipeline", "PIPELINE"), ("started_at", "STARTED")]
    none = f"No run yet; `{show.called()} run PIPELINE` starts one."
    if wanted or before:
        none = f"No run is {' and '.join(filter(None, [wanted, before and f'older than {before}']))}."
    session.answer(answer, show.table(rows, [*columns, ("took", "TOOK"), ("message", "MESSAGE")], none))


@commands.command()
@json_option
@click.pass_obj
def catalog(session: Session) -> None:
    """List the examples: pipelines that can be run by name."""
    found = workflows(session.client)
    columns = [("pipeline", "PIPELINE"), ("description", "DESCRIPTION")]
    session.answer(found, show.table(found, columns, "No pipeline can be run by name here."))


@commands.command()
@click.argument("run_id", required=False)
@json_option
@click.pass_obj
def artifacts(session: Session, run_id: str | None) -> None:
    """List the reports and outputs of RUN_ID, or of the active or last run."""
    answer = session.client.call("GET", f"/runs/{session.current_run(run_id)}/artifacts")
    rows = [
        file | {"size": show.size(file["size"]), "url": session.client.url + file["url"]}
        for file in answer["artifacts"]
    ]
    columns = [("kind", "KIND"), ("name", "NAME"), ("size", "SIZE"), ("url", "URL")]
    session.answer(answer, show.table(rows, columns, f"{answer['run_id']} has no reports and no outputs."))


@commands.command()
@click.argument("run_id", required=False)
@json_option
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
    none = f"No task of {answer['run_id']} is known."
    session.answer(answer, show.table(rows, [*columns, ("took", "TOOK"), ("memory", "MEMORY")], none))


@commands.command()
@click.argument("run_id", required=False)
@click.option("--follow", "-f", is_flag=True, help="Print its log until it ends, and exit with its code.")
@json_option
@click.pass_obj
def resume(session: Session, run_id: str | None, follow: bool) -> None:
    """Run RUN_ID, or the last run that has ended, again without the tasks that are done."""
    _submit(session, {"resume": session.ended_run(run_id), "when_busy": "queue", "triggered_by": "nfctl"}, follow)
