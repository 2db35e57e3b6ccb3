"""`nfctl up`: the service in the foreground, with words for whoever started it."""

import os
import shlex
import sys
import threading
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from nfctl import show
from nfctl.client import Client, Refused, Unreachable
from nfctl.follow import follow_run
from nfctl.service import LocalService, find_programs, only_one
from shared import times
from shared.settings import Settings, mistyped

EXAMPLE = "simple-pipeline"
_OF_ONE_SERVICE = ("DATA_DIR", "PORT", "FLOWER_PORT")


def serve(settings: Settings, *, demo: bool) -> int:
    """Run the service until it is told to stop, or a demo without a terminal has ended; returns the exit code.

    Raises CannotServe and ToolMissing.
    """
    for warning in mistyped():
        click.echo(warning, err=True)
    click.echo(f"Data directory: {settings.data_dir}")
    with only_one(settings.data_dir):
        found = find_programs(settings, click.echo)
        service = LocalService(settings, found, click.echo)
        service.check()
        client = Client(service.url, next(iter(settings.auth_tokens), None))
        service.stop_when_told()
        code, called, began = 0, show.called(), times.now()
        try:
            click.echo(f"Starting {service.names} …")
            service.start()
            if not service.told_to_stop:
                _welcome(settings, service)
                _tell_what_is_active(client, began)
                code = _demo(settings, client, service) if demo else 0
            if demo and sys.stdout.isatty():
                if service.told_to_stop:  # whoever pressed Ctrl-C asked for no more than that
                    code = 0
                else:
                    click.echo(f"\nThe service goes on at {service.url}/. Ctrl-C stops it.")
            elif demo and not service.told_to_stop:
                click.echo(f"\nThis is no terminal, so the service ends with the example. `{called} up` lets it go on.")
            if not demo or sys.stdout.isatty():
                service.watch()
        finally:
            try:
                if (run := _active(client)) is not None:
                    same = f"{_where()}{called}"
                    again = f"the next `{same} up` takes it up again, and `{same} cancel` then ends it"
                    click.echo(f"Run {run['run_id']} goes on without the service: {again}.")
                click.echo("Stopping …")
            finally:
                service.stop()
            click.echo("Stopped.")
    return code


def _welcome(settings: Settings, service: LocalService) -> None:
    click.echo(f"\n  Watch and start runs   {service.url}/\n  API documentation      {service.url}/docs/")
    if settings.flower_port:
        click.echo(f"  Celery's Flower        http://127.0.0.1:{settings.flower_port}/")
    if "PORT" in os.environ:  # nor will other terminals have it
        click.echo(f"  In other terminals     export NFCTL_URL={service.url}")
    click.echo("\nReady. Ctrl-C stops the service.\n")


def _where() -> str:
    """What was set for this service alone, as the next command for it must be told again."""
    given = ((name, os.environ.get(name)) for name in _OF_ONE_SERVICE)
    return "".join(f"{name}={shlex.quote(value)} " for name, value in given if value)


def _demo(settings: Settings, client: Client, service: LocalService) -> int:
    """Run the bundled example; a Ctrl-C meanwhile cancels it. Returns the run's exit code."""
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
    follower.join(settings.cancel_grace_seconds + 10)
    return codes[0] if codes else 1


def _tell_what_is_active(client: Client, began: datetime) -> None:
    """Whether it goes on from before the service was started, or begins now."""
    run = _active(client)
    if run is not None:
        goes_on = run["started_at"] is not None and times.from_text(run["started_at"]) < began
        click.echo(f"Run {run['run_id']} {'goes on, taken up again' if goes_on else 'begins; it has waited for this'}.")


def _active(client: Client) -> dict[str, Any] | None:
    with suppress(Refused, Unreachable):
        found: dict[str, Any] | None = client.call("GET", "/active")["run"]
        return found
    return None
