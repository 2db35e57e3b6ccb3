"""A burst: what a run that prints more than anybody reads does to the calls of others, and to who joins meanwhile."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from bench.caller import API, Caller
from bench.figures import Section, latencies
from bench.processes import TrialFailed
from bench.sizes import Sizes
from bench.stage import messages, printing, say, service_with_child, socket_events, stamps
from service_process import Service

_LOUD, _CALM = 100_000, 20
_GAP_SECONDS = 0.02
_BETWEEN_JOINS = 0.2
_LEFT_SECONDS = 1.0
_SECONDS_TO_BEGIN = 30.0
_PATIENCE = 60.0


@dataclass(slots=True)
class Found:
    """The seconds that each thing took while a run printed at one rate; how often who joined was told to come again."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    joined: list[float] = field(default_factory=list)
    sent_away: int = 0


def measure(sizes: Sizes) -> list[Section]:
    """Loud and calm, in turns."""
    loud, calm = Found(), Found()
    with service_with_child() as running:
        for _ in range(sizes.rounds):
            _meanwhile(running, _LOUD, sizes.seconds, loud)
            _meanwhile(running, _CALM, sizes.seconds, calm)
    other = f"while it prints {_CALM}"
    rows = [
        latencies(f"`{name}` while a run prints {_LOUD:,} lines a second", other, loud.calls[name], calm.calls[name])
        for name in calm.calls
    ]
    rows.append(latencies("A socket opened then, to a line printed after that", other, loud.joined, calm.joined))
    note = (
        f"Default retention, which is turned over ten times a second. A viewer reads all the while. {len(loud.joined)} "
        f"joined then; closed with 1013 before they had such a line, so that they came again: {loud.sent_away}."
    )
    return [Section("While a run prints 100,000 lines a second", rows, notes=[note])]


def _meanwhile(running: Service, rate: int, seconds: int, found: Found) -> None:
    run_id = running.submit("bench", parameters=printing(rate, rate * (seconds + 1)))
    running.wait(lambda: running.run(run_id)["status"] == "running", _SECONDS_TO_BEGIN)
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(2) as pool:
        deeds = [pool.submit(_watch, running, run_id), pool.submit(_join, running, run_id, until, found)]
        _call(running.port, run_id, until, found.calls)
    for deed in deeds:
        deed.result()
    running.ended(run_id)
    say(f"{rate:,} lines/s: {len(found.joined)} joined so far")


def _call(port: int, run_id: str, until: float, calls: dict[str, list[float]]) -> None:
    paths = {"GET /healthz": "/healthz", "GET /status": f"{API}/status", "GET /history": f"{API}/history"}
    paths["GET /runs/{run_id}/logs?tail=100"] = f"{API}/runs/{run_id}/logs?tail=100"
    caller = Caller(port)
    while time.monotonic() < until:
        for name, path in paths.items():
            calls.setdefault(name, []).append(caller.get(path))
            time.sleep(_GAP_SECONDS)
    caller.close()


def _watch(running: Service, run_id: str) -> None:
    """Read all that is sent, up to the end; who is too slow comes again."""
    while True:
        with suppress(TrialFailed):
            for _ in messages(running.port, run_id):
                pass
            return


def _join(running: Service, run_id: str, until: float, found: Found) -> None:
    """One after the other. Raises TrialFailed when one is not served."""
    while time.monotonic() < until - _LEFT_SECONDS:
        found.joined.append(_joined(running, run_id, found))
        time.sleep(_BETWEEN_JOINS)


def _joined(running: Service, run_id: str, found: Found) -> float:
    """The seconds from opening a socket, for all that is kept, to reading a line that was printed after that."""
    opened = time.time()
    while time.time() < opened + _PATIENCE:
        with suppress(TrialFailed):
            for event, at in socket_events(running.port, run_id):
                if any(printed > opened for printed in stamps(event)):
                    return at - opened
        found.sent_away += 1
    raise TrialFailed("Who joins is never served.")
