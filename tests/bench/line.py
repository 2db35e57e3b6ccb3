"""The line from a run's child to a viewer: the first line, latency, lines a second, and memory."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from bench.fanout import build
from bench.figures import Row, Section, compared, milliseconds, quantile, ratio
from bench.processes import (
    TrialFailed,
    Used,
    cpu_to_end,
    environment,
    machine_seconds,
    memory,
    own_cpu_seconds,
    parent,
    said,
)
from bench.sizes import Sizes
from bench.stage import (
    AT_ONCE,
    MANY_KEPT,
    STREAM,
    directory,
    printing,
    redis_server,
    say,
    service,
    service_with_child,
    subscribed,
    whole_run,
)
from service_process import Service
from websocket import create_connection

from nfctl import tools
from shared import keys

_PATIENCE = 120
_RATES = ((20, 200), (1_000, 5_000), (100_000, 500_000))
_COMPLETE, _LAST = b'"type":"complete"', 3
_STAMP = re.compile(rb"stamp (\d+\.\d+) (\d+) ")
_WAY_HEADINGS = (
    "lines/s",
    "written to published (ms, p50 / p99)",
    "written to read at a socket (ms, p50 / p99)",
    "share of the first in p50",
)
_WAY_NOTE = (
    "Of one run each. Up to the publishing it is the worker: its shim, the file, what gathers, and Redis, as a plain "
    "subscriber sees it. After it, it is the process that holds the sockets, and the reader's own time."
)


def measure(sizes: Sizes) -> list[Section]:
    """Runs of a pipeline that says hi, and of the stand-in at some lines a second, so many in all."""
    rows = [
        *first_line(),
        *(row for rate, lines in _RATES for row in latency(rate, lines, sizes.rounds)),
        *throughput(sizes.rounds),
        *memories(),
    ]
    note = (
        f"Of {sizes.rounds} runs the median, but of the first line's and of memory. Each line came once and in order; "
        "both readers of a log are the same program, which is not Python."
    )
    way = [on_its_way(rate, lines) for rate, lines in _RATES]
    return [
        Section("A run on one machine", rows, notes=[note]),
        Section("A line on its way", way, _WAY_HEADINGS, [_WAY_NOTE]),
    ]


def first_line() -> list[Row]:
    """From the POST to the first log line at a socket, beside a bare `nextflow run` to its first line."""
    nextflow = str(tools.nextflow(lambda _: None))
    ours, bare = [], []
    our_cpu, own_cpu, bare_cpu = [], [], []
    with service() as running, directory() as here:
        script = here / "main.nf"
        script.write_text("workflow { println 'hi' }\n")
        for _ in range(5):
            socket = create_connection(f"ws://127.0.0.1:{running.port}{STREAM}")
            began, used, own = time.monotonic(), machine_seconds(), Used(running.pid)
            run_id = running.submit(str(script))
            while orjson.loads(socket.recv())["type"] != "log":
                pass
            ours.append(time.monotonic() - began)
            socket.close()
            running.ended(run_id)
            our_cpu.append(machine_seconds() - used)
            own_cpu.append(own.seconds())
            began, used = time.monotonic(), machine_seconds()
            child = subprocess.Popen(
                [nextflow, "run", str(script)], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert child.stdout
            child.stdout.readline()
            bare.append(time.monotonic() - began)
            child.communicate()
            bare_cpu.append(machine_seconds() - used)
    return [
        compared("POST to the first log line (s, median of 5)", "`nextflow run` to its first line", ours, bare),
        compared("… CPU of the whole machine, to the end of the run (s)", "`nextflow run`", our_cpu, bare_cpu),
        compared("… of it the service's own, without Nextflow and its shim (s)", "`nextflow run`", own_cpu, bare_cpu),
    ]


def latency(rate: int, lines: int, rounds: int) -> list[Row]:
    """From a line's writing to its reading at a socket, beside `tail -F` on the same run's log."""
    program = build.load_program(say)
    ours, theirs, cpu, tail_cpu = zip(*(_followed(program, rate, lines) for _ in range(rounds)), strict=True)
    other = "`tail -F` of the run's log"
    mine, its = ([median(found[name] for found in those) for name in ("p50_ms", "p99_ms")] for those in (ours, theirs))
    return [
        (
            f"A line at {rate:,} lines/s, written to read (ms, p50 / p99)",
            " / ".join(f"{value:.1f}" for value in mine),
            f"{' / '.join(f'{value:.1f}' for value in its)} {other}",
            " / ".join(f"{one / another:.1f}" for one, another in zip(mine, its, strict=True)),
        ),
        compared("… CPU a line (µs)", other, cpu, tail_cpu, "{:,.1f}"),
    ]


def _followed(program: Path, rate: int, lines: int) -> tuple[dict[str, Any], dict[str, Any], float, float]:
    """How old the lines of one run were when they were read here and there, and the CPU µs a line of each.

    The first second does not count: it is the catching up of whoever came late. Raises TrialFailed unless each line
    came once and in order.
    """
    with service_with_child(**MANY_KEPT) as running:
        used = Used(running.pid)
        run_id = running.submit("bench", parameters=printing(rate, lines))
        log = running.data_dir / "runs" / run_id / "log"
        running.wait(lambda: log.exists(), 10)
        skipped = ["-skipped", str(rate)]
        with (
            subprocess.Popen(["tail", "-n", "+1", "-F", str(log)], stdout=subprocess.PIPE) as tail,
            subprocess.Popen(
                [str(program), "-lines", str(lines), *skipped], stdin=tail.stdout, stdout=subprocess.PIPE
            ) as reader,
        ):
            where = ["-host", f"127.0.0.1:{running.port}", "-path", f"{STREAM}?run_id={run_id}"]
            try:
                told, _ = said([str(program), *where, "-watchers", "1", *skipped], environment(), _PATIENCE)
                read, _ = reader.communicate(timeout=_PATIENCE)
                cpu, tail_cpu = used.seconds(), own_cpu_seconds(tail.pid)
            except subprocess.TimeoutExpired as error:
                raise TrialFailed(f"Not each of {lines:,} lines came from `tail`.") from error
            finally:
                tail.kill()
                reader.kill()
    found = [orjson.loads(told), orjson.loads(read)]
    if any(one["lines"] != lines or one["wrong"] for one in found):
        raise TrialFailed(f"Not each of {lines:,} lines came once and in order: {found}")
    return found[0], found[1], 1e6 * cpu / lines, 1e6 * tail_cpu / lines


def on_its_way(rate: int, lines: int) -> Row:
    """How old the lines of a run are when they are published, and when they are read. Raises TrialFailed."""
    program = build.load_program(say)
    found: list[tuple[float, bytes]] = []
    with (
        directory() as here,
        redis_server(here, "--appendonly", "yes") as (url, _),
        service_with_child(REDIS_URL=url, **MANY_KEPT) as running,
        subscribed(url, keys.CHANNEL, lambda message: found.append((time.time(), message))),
    ):
        run_id = running.submit("bench", parameters=printing(rate, lines))
        running.wait(lambda: running.run(run_id)["status"] == "running", 10)
        where = ["-host", f"127.0.0.1:{running.port}", "-path", f"{STREAM}?run_id={run_id}"]
        watch = [str(program), *where, "-watchers", "1", "-skipped", str(rate)]
        read = orjson.loads(said(watch, environment(), _PATIENCE)[0])
        running.wait(lambda: any(_COMPLETE in message for _, message in found[-_LAST:]))
    stamps = [(at, _STAMP.findall(message)) for at, message in found]
    ages = [at - float(printed) for at, lines_of in stamps for printed, number in lines_of if int(number) >= rate]
    published = sum(len(lines_of) for _, lines_of in stamps)
    if not published == read["lines"] == lines or read["wrong"] or read["failure"]:
        raise TrialFailed(f"Not each of {lines:,} lines was published once and read in order: {read}")
    share = 1000 * quantile(ages, 0.5) / read["p50_ms"]
    return f"{rate:,}", milliseconds(ages), f"{read['p50_ms']:.1f} / {read['p99_ms']:.1f}", f"{share:.2f}"


def throughput(rounds: int) -> list[Row]:
    """Lines a second of one run that prints as fast as it can, all the way to a socket, beside `cat` of its log."""
    lines = 200_000
    ours, theirs, cpu, cat_cpu = zip(*(_printed_at_once(lines) for _ in range(rounds)), strict=True)
    title = f"Lines/s of {lines:,} printed at once, POST to the last at a socket"
    return [
        compared(title, "`cat`", ours, theirs, "{:,.0f}"),
        compared("… CPU a line (µs)", "`cat`", cpu, cat_cpu),
    ]


def _printed_at_once(lines: int) -> tuple[float, float, float, float]:
    """Lines a second of one run at a socket and of `cat` of its log, and the CPU µs a line of each."""
    with service_with_child(**MANY_KEPT) as running:
        posted, used = time.time(), Used(running.pid)
        run_id = running.submit("bench", parameters=printing(AT_ONCE, lines))
        _, last = whole_run(running.port, run_id, lines)[-1]
        ours, cpu = lines / (last - posted), used.seconds()
        began = time.monotonic()
        with (running.data_dir / "runs" / run_id / "log").open("rb") as log:
            cat_cpu = cpu_to_end(["cat"], log)
        theirs = lines / (time.monotonic() - began)
    return ours, theirs, 1e6 * cpu / lines, 1e6 * cat_cpu / lines


def memories() -> list[Row]:
    """Proportional set size of each process with ten viewers at work, beside a bare Python's."""
    reference = bare_python()
    with service_with_child() as running:
        run_id = running.submit("bench", parameters=printing(100, 1000))
        url = f"ws://127.0.0.1:{running.port}{STREAM}?run_id={run_id}"
        sockets = [create_connection(url) for _ in range(10)]
        time.sleep(5)
        found = [
            memory_row(name, [memory(pid) for pid in pids], reference) for name, pids in by_program(running, run_id)
        ]
        for socket in sockets:
            socket.close()
        running.ended(run_id)
    return found


def by_program(running: Service, run_id: str) -> list[tuple[str, list[int]]]:
    """The processes of a service while a run is at work."""
    programs = ("redis-server", "worker@", "worker.reconciler", "gunicorn", "flower")
    shim = parent(running.of_run(run_id)[0])
    return [*((name, running.children(name)) for name in programs), ("the run's shim", [shim])]


def memory_row(name: str, each: list[float], reference: float) -> Row:
    """The processes of one program, in MiB, beside a bare Python."""
    return (
        f"Memory of {name} (MiB PSS, {counted(each)})",
        " + ".join(f"{one:.0f}" for one in each),
        f"{reference:.0f} bare Python",
        ratio(sum(each), reference),
    )


def counted(processes: Sequence[object]) -> str:
    """How many processes, in words."""
    return f"{len(processes)} process{'es' if len(processes) > 1 else ''}"


def bare_python() -> float:
    """The memory of a Python that does nothing, in MiB."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    time.sleep(1)
    found = memory(process.pid)
    process.communicate(b"\n")
    return found
