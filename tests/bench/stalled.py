"""Sockets that read nothing: what they cost the service and those that do read, and what becomes of them."""

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.burst import Scene, begin, readers
from bench.caller import API, Caller
from bench.fanout import build
from bench.figures import Section, compared, latencies
from bench.processes import TrialFailed, memory
from bench.sizes import Sizes
from bench.stage import CUT, STREAM, say, service_with_child
from bench.status import Taken, who_answers
from service_process import Service
from websocket import ABNF, WebSocket, WebSocketConnectionClosedException, WebSocketException, create_connection

_RATE, _WATCHERS = 20_000, 4
_A_TENTH = 10
# They are given up after twenty seconds.
_SECONDS = 30
_LOOK_SECONDS = 0.5
_PATIENCE = 30.0
_CALL = "`GET /status`"


@dataclass(slots=True)
class Found(Taken):
    """What calls took; the most memory of the web in MiB and how many sockets came again, a trial; of those that read
    nothing, how they were closed, and the seconds until the last was.
    """

    memory: list[float] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    closes: Counter[int] = field(default_factory=Counter)
    gone: list[float] = field(default_factory=list)


def measure(sizes: Sizes) -> list[Section]:
    """With such sockets and without, in turns."""
    program = build.load_program(say)
    number = max(1, sizes.viewers // _A_TENTH)
    alone, beside = Found(), Found()
    with readers() as pool:
        for _ in range(sizes.trials):
            for many, found in ((0, alone), (number, beside)):
                with service_with_child() as running:  # another one: what a process once had, it has for good
                    answers = who_answers(running.children("gunicorn"), running.port)
                    _play(running, many, found, pool, program, answers)
            say(f"{number} that read nothing: gone after {beside.gone[-1]:.0f} s, {beside.memory[-1]:.0f} MiB")
    what = f"{number} read nothing, {_WATCHERS} watch {_RATE:,} lines/s"
    rows = [
        latencies(f"{_CALL}: {what}", "without those", beside.seconds[_CALL], alone.seconds[_CALL]),
        compared("Most memory of all web processes (MiB)", "without those", beside.memory, alone.memory, "{:.0f}"),
    ]
    notes = [
        f"Of {number * sizes.trials} sockets that read nothing {beside.closes[CUT]} were cut off, and "
        f"{sum(beside.closes.values()) - beside.closes[CUT]} closed with a code ({_codes(beside.closes)}); the last "
        f"{median(beside.gone):.0f} s after it was opened. Who watched saw each event once and in order, and was sent "
        f"away {sum(beside.again)} times (without those, {sum(alone.again)})."
    ]
    return [Section("Sockets that read nothing", rows, notes=notes)]


def _codes(closes: Counter[int]) -> str:
    return ", ".join(f"{code}: {closes[code]}" for code in sorted(closes) if code != CUT) or "none"


def _play(running: Service, number: int, found: Found, pool: ProcessPoolExecutor, program: Path, answers: int) -> None:
    """Raises TrialFailed when one is still served at the end, or somebody that reads was not served in order."""
    run_id, watching = begin(running, Scene(_RATE, _WATCHERS), _SECONDS, pool, program)
    with ExitStack() as opened, closing(Caller(running.port)) as caller:
        # Every other one asks for all that is kept, and reads none of it.
        wanted = [f"{run_id}&since=0" if each % 2 else run_id for each in range(number)]
        silent = [opened.enter_context(closing(_silent(running.port, query))) for query in wanted]
        began, gone, most = time.monotonic(), None, 0.0
        while (now := time.monotonic()) < began + _SECONDS:
            most = max(most, sum(map(memory, running.children("gunicorn"))))
            if running.client.call("GET", "/status")["connected_clients"] <= _WATCHERS:
                gone = gone or now - began
            while time.monotonic() < now + _LOOK_SECONDS:
                found.ask(caller, answers, f"{API}/status", _CALL)
        seen = watching.result()
        running.ended(run_id, _PATIENCE)
        if gone is None:
            raise TrialFailed(f"Of {number} sockets that read nothing some are served after {_SECONDS} s.")
        found.closes += Counter(map(_end, silent))
    found.memory.append(most)
    found.again.append(seen["told"] + seen["cut"])
    found.gone.append(gone)


def _silent(port: int, wanted: str) -> WebSocket:
    """A socket that is greeted, and then reads no more."""
    made = create_connection(f"ws://127.0.0.1:{port}{STREAM}?run_id={wanted}", timeout=_PATIENCE)
    made.recv()
    return made


def _end(silent: WebSocket) -> int:
    """With what code it was closed, after all that is still on its way to it."""
    try:
        while True:
            opcode, data = silent.recv_data()
            if opcode == ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")
    except (ConnectionError, WebSocketConnectionClosedException):
        return CUT
    except (WebSocketException, OSError) as error:
        raise TrialFailed(f"A socket that read nothing broke off: {error!r}.") from error
