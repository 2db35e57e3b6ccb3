"""Filters: what those who see a run that has ended (`run_id=`) cost those who watch the active one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Cast, Load, crowd, opened
from bench.figures import Section, ratio
from bench.processes import TrialFailed, allow_files
from bench.sizes import Sizes
from bench.stage import say

from shared import times
from shared.redis_client import connect
from shared.runs import Run, new_run_id, new_session_id
from shared.settings import load as load_settings
from shared.store import Store

_RATE = 20
_PATIENCE = 120
_FIGURES = {"p50_ms": "p50 (ms)", "p99_ms": "p99 (ms)", "cpu": "CPU a delivery (µs)"}


def measure(sizes: Sizes) -> list[Section]:
    """With bystanders and without, in turns."""
    allow_files(2 * sizes.viewers)
    program = build.load_program(say)
    load = Load(sizes.viewers, _RATE, sizes.seconds)
    beside, alone = [], []
    for _ in range(sizes.rounds):
        with opened(SERVERS["ours"](say), load, program) as cast, _bystanders(cast, program):
            beside.append(cast.carry(load))
        with opened(SERVERS["ours"](say), load, program) as cast:
            alone.append(cast.carry(load))
    rows = []
    for name, says in _FIGURES.items():
        mine, his = (median(report[name] for report in reports) for reports in (beside, alone))
        what = f"{sizes.viewers:,} who watch the active run, {says}"
        rows.append((what, f"{mine:.1f}", f"{his:.1f} without the others", ratio(mine, his)))
    note = (
        f"{_RATE} frames/s, and as many sockets that see a run that has ended. These had no event of the other run and "
        "answered pings; nothing was lost, doubled or out of order at those who watch."
    )
    return [Section("Filters", rows, notes=[note])]


@contextmanager
def _bystanders(cast: Cast, program: Path) -> Iterator[None]:
    """As many sockets again, of another run. Raises TrialFailed when one was closed, or has seen anything."""
    stage = cast.stage
    store = Store(connect(stage.redis_url), load_settings({"REDIS_URL": stage.redis_url}))
    now = times.now()
    other = Run(run_id=new_run_id(now), pipeline="other", session_id=new_session_id(), queued_at=now)
    store.submit(other, "queue")
    store.cancel(other.run_id)
    path = f"/api/v1/pipeline/stream?run_id={other.run_id}"
    with crowd(SERVERS["ours"](say), program, {"path": path, "first": 1}, stage) as client:
        count = client.hear(_PATIENCE)["opened"]
        yield
        client.tell("0")  # no frame is for them
        client.hear(_PATIENCE)
        client.tell("end")
        report = client.hear(_PATIENCE)
    if report["deliveries"] or not report["alive"] == count == stage.sockets:
        raise TrialFailed(f"Of {stage.sockets} bystanders {report['alive']} are alive; events: {report['deliveries']}.")
