"""Run a pipeline and follow it: its log on stdout, its progress on stderr, its result as the exit code.

    python follow.py hello '{"fast": true}'

NFCTL_URL says where the service is; NFCTL_TOKEN is sent as a bearer token. The exit code: 0 succeeded,
1 failed, 2 cancelled, 3 wrong usage, refused or out of reach. Ctrl-C ends the following, not the run.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, NoReturn

import httpx
import websocket

# The server says something every 25 s; one that does not has silently gone.
SILENCE = 60
# In the reason of a socket that is closed because the service lost events, as Redis can when its machine dies.
LOST = b"since=0"
say = partial(print, file=sys.stderr, flush=True)
HEADERS = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("NFCTL_TOKEN")) else {}


def give_up(text: str) -> NoReturn:
    say(text)
    raise SystemExit(3)


def submit(url: str, pipeline: str, parameters: dict[str, Any]) -> str:
    """Starts the run, or has it wait for its turn, and gives its id."""
    body = {"pipeline": pipeline, "parameters": parameters, "when_busy": "queue", "triggered_by": "follow.py"}
    try:
        answer = httpx.post(f"{url}/api/v1/pipeline/run", json=body, headers=HEADERS, timeout=30)
    except httpx.HTTPError as error:
        give_up(f"cannot reach {url}: {error}")
    if answer.is_error:
        give_up(f"the service refused: {answer.status_code} {answer.text}")
    run = answer.json()
    say(f"run {run['run_id']}: {run['status']}")
    return str(run["run_id"])


def frames(stream: str) -> Iterator[dict[str, Any]]:
    """Each event of the run once, in order; after a lost connection it goes on behind the last id it saw."""
    since, pause = 0, 1
    while True:
        try:
            opened = websocket.create_connection(f"{stream}&since={since}", header=HEADERS, timeout=SILENCE)
            with closing(opened) as socket:
                while (message := socket.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
                    frame = json.loads(message[1])
                    last_id, status = frame["data"].get("last_id"), frame["data"].get("status")
                    ended_otherwise = last_id == since > 0 and status in ("succeeded", "failed", "cancelled")
                    if last_id is not None and (last_id < since or ended_otherwise):
                        message = 0, LOST
                        break
                    if frame["data"].get("first_id", 0) > since + 1:
                        say("some events before this are no longer kept")
                    since, pause = frame["id"] or since, 1  # a snapshot and a keep-alive have no id
                    yield frame
            if LOST in message[1]:
                since = 0
                say("the service has lost events that were seen here: all that it keeps comes again")
            say(f"the connection was closed; trying again in {pause} s")
        except (websocket.WebSocketException, OSError) as error:
            if getattr(error, "status_code", None) in (401, 403, 404):
                give_up(f"the service refused: {error}")
            say(f"{error}; trying again in {pause} s")
        time.sleep(pause)
        pause = min(2 * pause, 30)


def follow(url: str, run_id: str) -> int:
    """Shows the run until it is complete, and gives the exit code."""
    shown: dict[str, dict[str, Any]] = {}
    for frame in frames(f"{url.replace('http', 'ws', 1)}/api/v1/pipeline/stream?run_id={run_id}"):
        match frame["type"], frame["data"]:
            case "log", data:
                print(*(line["message"] for line in data["lines"]), sep="\n", flush=True)
            case "progress", data:
                changed = [row for row in data["processes"] if shown.get(row["name"]) != row]
                shown |= {row["name"]: row for row in changed}
                for row in changed:
                    counts = ", ".join(f"{n} {what}" for what, n in row.items() if what != "name" and n)
                    say(f"[{data['percent']:3.0f}%] {row['name']}: {counts or 'waiting'}")
            case "status", data if frame["id"] is not None:
                say(f"status: {data['status']}")
            case "error", data:
                say(f"{data['level']}: {data['message']} {data.get('hint') or ''}".rstrip())
            case "complete", data:
                say(f"{data['status']} in {data['duration_seconds'] or 0:.0f} s")
                return ("succeeded", "failed", "cancelled").index(data["status"])
    raise AssertionError("frames() ends only by an exception")


def no_number(name: str) -> NoReturn:
    """NaN and its like, which JSON has not."""
    raise ValueError(name)


def json_object(text: str) -> dict[str, Any]:
    """A run's parameters."""
    try:
        found = json.loads(text, parse_constant=no_number)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return found


class Parser(argparse.ArgumentParser):
    """Wrong usage is no cancelled run, whose code argparse gives it."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and what is wrong."""
        give_up(f"{self.format_usage()}{message}")


if __name__ == "__main__":
    parser = Parser()
    parser.add_argument("pipeline")
    parser.add_argument("parameters", nargs="?", type=json_object, default={}, help="a JSON object")
    parser.add_argument("--url", default=os.environ.get("NFCTL_URL", "http://127.0.0.1:8000"))
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C without a traceback
    sys.exit(follow(options.url, submit(options.url, options.pipeline, options.parameters)))
