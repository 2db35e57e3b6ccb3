"""The stage: servers that a measurement stands on, each in a directory of its own and ended with its block."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import orjson
from bench.processes import TrialFailed, environment, serving
from ports import free_port
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from service_process import Service
from websocket import ABNF, WebSocketConnectionClosedException, WebSocketException, create_connection

from nfctl import tools
from nfctl.children import Program
from shared.settings import Settings, load

# Stands in for Nextflow where Nextflow itself would be what is measured: prints stamped lines at a rate.
_CHILD = f"""#!{sys.executable}
import json, sys, time
if "-params-file" not in sys.argv:
    print("nextflow version 24.10.0") or sys.exit()
parameters = json.load(open(sys.argv[sys.argv.index("-params-file") + 1]))
gap = 1 / parameters["rate"]
start = time.time()
for n in range(parameters["lines"]):
    if n % max(1, parameters["rate"] // 1000) == 0:
        sys.stdout.flush()
        while (early := start + n * gap - time.time()) > 0:
            time.sleep(early)
    sys.stdout.write("stamp %.6f %d %s\\n" % (time.time(), n, "x" * parameters["width"]))
"""
AT_ONCE = 10**9
"""A rate at which the child never waits."""

WEB_COMMAND = (sys.executable, "-m", "gunicorn", "-c", "python:web.gunicorn_conf", "web.wsgi:app")
PLAIN_COMMAND = (sys.executable, "-m", "gunicorn", "-k", "gevent", "--no-control-socket")
STREAM = "/api/v1/pipeline/stream"
# No measurement is about what a client may ask for.
_NO_LIMITS = {"RATE_LIMIT": "1000000/second", "QUEUE_LIMIT": "100000", "RUN_HISTORY_LIMIT": "100000"}
MANY_KEPT = {"LOG_RETENTION_LINES": "1000000", "LOG_RETENTION_BYTES": "1000000000"}
"""Settings by which more is kept than most measured runs print, so that whoever comes later misses nothing."""
KEPT_LINES = load({"REDIS_URL": "redis://127.0.0.1"}).log_retention_lines
"""Lines that are kept of a run by default."""
_COMPLETE = b'"type":"complete"'
# So near to its beginning a frame says of what type it is.
_HEAD = 60
_SILENCE_SECONDS = 60
CUT = 1006
"""The code of a socket that ended without a goodbye: RFC 6455, section 7.4.1."""
_END_SECONDS = 3
_SHIM_SECONDS = 30


def settings_alone(**settings: str) -> dict[str, str]:
    """An environment with these settings; all others have their defaults, whatever the shell or a .env file says."""
    return environment() | {item.name.upper(): "" for item in fields(Settings)} | _NO_LIMITS | settings


@contextmanager
def directory() -> Iterator[Path]:
    """A temporary one."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


@contextmanager
def redis_server(here: Path, *options: str) -> Iterator[tuple[str, int]]:
    """A Redis that keeps nothing on disk unless told to: its URL and pid. Raises ToolMissing and TrialFailed."""
    port = free_port()
    binary = tools.redis_server(say)
    in_memory = ["--save", "", "--appendonly", "no", "--dir", str(here)]
    command = [str(binary), "--bind", "127.0.0.1", "--port", str(port), *in_memory, *options]
    client = Redis(port=port, retry=Retry(NoBackoff(), 0))  # its own would sleep for a second and more

    def answers() -> bool:
        try:
            return bool(client.ping())
        except RedisError:
            return False

    with serving(Program("redis", command, environment(), here / "redis.log"), answers) as pid:
        client.close()
        yield f"redis://127.0.0.1:{port}/0", pid


@contextmanager
def subscribed(url: str, channel: str, take: Callable[[bytes], object]) -> Iterator[None]:
    """A plain subscriber to a channel of Redis, which takes all that comes, in a thread of its own."""
    redis: Any = Redis.from_url(url)
    subscription = redis.pubsub()
    subscription.subscribe(**{channel: lambda message: take(message["data"])})
    reader = subscription.run_in_thread(sleep_time=1.0, daemon=True)  # by default it would never wait
    try:
        yield
    finally:
        reader.stop()
        reader.join()
        redis.close()


@contextmanager
def http_server(
    command: Sequence[str], its_environment: Mapping[str, str], here: Path, port: int, path: str
) -> Iterator[int]:
    """A server that answers at a path once it is ready; gives its pid. Raises TrialFailed."""

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code < 500
        except httpx.HTTPError:
            return False

    with serving(Program("server", command, its_environment, here / "server.log", _END_SECONDS), answers) as pid:
        yield pid


@contextmanager
def service(**settings: str) -> Iterator[Service]:
    """The whole service in a temporary directory."""
    with directory() as here:
        running = Service(here / "data", **(_NO_LIMITS | settings))
        running.start()
        try:
            yield running
        finally:
            running.kill()
            # A shim whose child was killed writes down how that ended, and waits for ever for a directory to do so.
            begun = [mark.parent for mark in running.data_dir.glob("runs/*/started")]
            running.wait(lambda: all((run / "exit.json").exists() for run in begun), _SHIM_SECONDS)


@contextmanager
def service_with_child(**settings: str) -> Iterator[Service]:
    """A service whose Nextflow is the stand-in."""
    with directory() as here, service(NEXTFLOW_BIN=str(write_child(here)), **settings) as running:
        yield running


def write_child(here: Path) -> Path:
    """The stand-in, in a directory."""
    child = here / "nextflow"
    child.write_text(_CHILD)
    child.chmod(0o755)
    return child


def printing(rate: int, lines: int, width: int = 80) -> dict[str, int]:
    """The parameters of a run of the stand-in."""
    return {"rate": rate, "lines": lines, "width": width}


class Closed(TrialFailed):
    """A socket was closed before the end of its run."""

    def __init__(self, code: int) -> None:
        super().__init__(f"A socket was closed with {code} before the end of its run.")
        self.code = code


def messages(port: int, run_id: str, since: int = 0) -> Iterator[tuple[bytes, float]]:
    """Each frame of a run at a plain socket, with the time of its reading, up to `complete`.

    Raises Closed when it is closed before that, with 1006 when it is cut, and TrialFailed when it says nothing.
    """
    url = f"ws://127.0.0.1:{port}{STREAM}?run_id={run_id}&since={since}"
    try:
        with closing(create_connection(url, skip_utf8_validation=True, timeout=_SILENCE_SECONDS)) as socket:
            message = b""
            while _COMPLETE not in message[:_HEAD]:
                opcode, message = socket.recv_data()
                if opcode != ABNF.OPCODE_TEXT:
                    raise Closed(int.from_bytes(message[:2], "big"))
                yield message, time.time()
    except (ConnectionError, WebSocketConnectionClosedException) as error:
        raise Closed(CUT) from error
    except (WebSocketException, OSError) as error:
        raise TrialFailed(f"A socket of {run_id} broke off: {error!r}.") from error


def socket_events(port: int, run_id: str, since: int = 0) -> Iterator[tuple[dict[str, Any], float]]:
    """Each event of a run at a plain socket, with the time of its reading, up to `complete`; see `messages`."""
    for message, at in messages(port, run_id, since):
        yield orjson.loads(message), at


def whole_run(port: int, run_id: str, lines: int) -> list[tuple[list[float], float]]:
    """When the lines of each event of a run of the stand-in were printed, with the time of its reading.

    Nothing is looked at before all is read, so that the client does nothing else meanwhile. Raises TrialFailed unless
    each line came once and in order.
    """
    found: list[tuple[list[float], float]] = []
    due = 0
    for message, at in list(messages(port, run_id)):
        event = orjson.loads(message)
        if event["type"] != "log":
            continue
        printed = []
        for line in event["data"]["lines"]:
            words = line["message"].split(maxsplit=3)
            if words[:1] == ["stamp"]:
                if int(words[2]) != due:
                    raise TrialFailed(f"Line {words[2]} came where {due} was due.")
                due += 1
                printed.append(float(words[1]))
        found.append((printed, at))
    if due != lines:
        raise TrialFailed(f"Only {due:,} of {lines:,} lines came.")
    return found


def say(line: str) -> None:
    """Tell whoever waits what is going on; the report itself goes to standard output."""
    print(line, file=sys.stderr, flush=True)
