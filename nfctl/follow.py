"""A run in the terminal: its log and progress as they come, to its end."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from nfctl import show
from nfctl.client import Client, Refused, Unreachable

INTERRUPTED = 130
_AWAY = "The run may go on meanwhile; trying again, once a second …"
_BRIEFLY = 3.0
_ENDED = (*show.DONE, "aborted")


def follow_run(client: Client, run_id: str, *, as_json: bool = False, tail: int | None = None) -> int:
    """Print a run's log and progress as they come, to its end; returns its exit code, 130 after Ctrl-C.

    `tail`: of what has been, only so many of the newest lines, and what came with them; as JSON in whole events.
    """
    try:
        return _follow(client, run_id, as_json, *(client.newest_lines(run_id, tail) if tail else (0, 0)))
    except KeyboardInterrupt:
        click.echo(
            f"\nNo longer following; run {run_id} goes on. See `nfctl status`, or `nfctl cancel` to end it.", err=True
        )
        return INTERRUPTED


def _follow(client: Client, run_id: str, as_json: bool, since: int, passed_over: int) -> int:
    shown: tuple[Any, ...] = ()
    last = since
    gap_told = False
    for frame in client.follow(run_id, since, away=lambda why: click.echo(f"{why} {_AWAY}", err=True)):
        if frame["data"].get("first_id", 0) > last + 1:
            if not gap_told:
                click.echo(show.gap(run_id), err=True)
            gap_told, last = True, frame["data"]["first_id"] - 1
        if frame["id"] is not None:
            gap_told, last = False, frame["id"]
        if as_json:
            click.echo(json.dumps(frame))
            if frame["type"] == "complete":
                return _exit_code(frame["data"]["run"])
            continue
        data = frame["data"]
        match frame["type"]:
            case "log":
                for line in data["lines"][passed_over if frame["id"] == since + 1 else 0 :]:
                    click.echo(line["message"])
            case "progress" if data["processes"]:
                # What has come to an end: a line for each task that begins would be too many.
                ended = tuple(sum(process[kind] for kind in _ENDED) for process in data["processes"])
                if (data["percent"], ended) != shown:
                    shown = (data["percent"], ended)
                    click.echo(show.coloured(show.progress_line(data), "running"))
            case "error":
                _show_error(data)
            case "status" if frame["id"] is not None and data["status"] in (
                "queued",
                "starting",
                "cancelling",
            ):
                click.echo(show.coloured(f"The run is {data['status']}.", data["status"]))
            case "complete":
                _show_end(data, client)
                return _exit_code(data["run"])
    return 1


def _show_error(data: Mapping[str, Any]) -> None:
    """What the log has not said already: the cluster's own words, and what to do about an error."""
    from_cluster = data["source"] not in ("nextflow", "service")  # the service's own are told with the end
    if from_cluster:
        click.echo(show.coloured(data["message"], data["level"]))
    if data.get("hint") and (from_cluster or data["level"] == "error"):
        click.echo(show.coloured(f"Hint: {data['hint']}", data["level"]))


def _show_end(data: dict[str, Any], client: Client) -> None:
    took = "" if data["duration_seconds"] is None else f" after {show.seconds(data['duration_seconds'])}"
    run_id = data["run"]["run_id"]
    text = f"{run_id} {data['status']}{took}: {data['run']['message']}"
    click.echo(show.coloured(text, data["status"]))
    with suppress(Refused, Unreachable):  # it is told for convenience
        if client.call("GET", f"/runs/{run_id}/artifacts", timeout=_BRIEFLY)["artifacts"]:
            click.echo(f"Reports and outputs: {client.url}/#run={run_id}, or `nfctl artifacts {run_id}`")


def _exit_code(run: dict[str, Any]) -> int:
    return 0 if run["status"] == "succeeded" else int(run["exit_code"] or 1)
