"""`nfctl up`: the service in the foreground, with words for whoever started it."""

import sys
import threading

import click

from nfctl import show
from nfctl.client import Client, Refused, Unreachable
from nfctl.follow import follow_run
from nfctl.service import LocalService, find_programs, only_one
from shared.settings import Settings, mistyped

EXAMPLE = "simple-pipeline"


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
        code, called = 0, show.called()
        try:
            click.echo(f"Starting {service.names} …")
            service.start()
            if not service.told_to_stop:
                _welcome(settings, service)
                _tell_what_goes_on(client, "goes on, taken up again")
                code = _demo(settings, client, service) if demo else 0
            if demo and sys.stdout.isatty():
                if service.told_to_stop:  # whoever pressed Ctrl-C asked for no more than that
                    code = 0
                else:
                    click.echo(f"\nThe service goes on at {service.url}/. Ctrl-C stops it.")
            if not demo or sys.stdout.isatty():
                service.watch()
        finally:
            try:
                _tell_what_goes_on(client, f"goes on without the service; the next `{called} up` takes it up again")
                click.echo("Stopping …")
            finally:
                service.stop()
            click.echo("Stopped.")
    return code


def _welcome(settings: Settings, service: LocalService) -> None:
    click.echo(f"\n  Watch and start runs   {service.url}/\n  API documentation      {service.url}/docs/")
    if settings.flower_port:
        click.echo(f"  Celery's Flower        http://127.0.0.1:{settings.flower_port}/")
    click.echo("\nReady. Ctrl-C stops the service.\n")


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


def _tell_what_goes_on(client: Client, how: str) -> None:
    try:
        run = client.call("GET", "/active")["run"]
    except (Refused, Unreachable):
        return
    if run is not None:
        click.echo(f"Run {run['run_id']} {how}.")
