"""Measures a run on the tests' cluster, each row beside `kubectl` in the same run.

`make bench-kubernetes` prints a Markdown table, and puts it into `docs/performance.md` when all could be measured. It
starts the cluster if it is not up, and leaves it up.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import pytest
from bench.document import DOCS, markdown, moment, put
from bench.figures import Row, Section, compared, latencies, milliseconds
from bench.line import bare_python, memory_row
from bench.processes import TrialFailed, Used, cpu_at_end, memory
from bench.stage import MANY_KEPT, STREAM, say, whole_run
from cluster import images
from cluster.deployment import deploy_runs, runner_settings
from cluster.node import Node, NodeFailed, up
from service_process import Service
from websocket import WebSocketException, create_connection

from nfctl.client import Refused

NAMESPACE = "nextflow-bench"
_ROUNDS, _RUNS = 5, 3
_RATE, _SECONDS = 20, 60
_SETTLE_SECONDS = 5
_AT_ONCE, _CHUNK = 50_000, 1_000
_HELLO = "println 'hi'\n"
_STAMPS = f"""
for( int n = 0; n < {_RATE * _SECONDS}; n++ ) {{
    println String.format(Locale.ROOT, 'stamp %.6f %d', System.currentTimeMillis() / 1000.0d, n)
    sleep {1000 // _RATE}
}}
"""
_BURST = f"""
println 'ready'
sleep 5000
for( int n = 0; n < {_AT_ONCE}; n += {_CHUNK} ) {{
    def now = System.currentTimeMillis() / 1000.0d
    println((n..<n + {_CHUNK}).collect {{ String.format(Locale.ROOT, 'stamp %.6f %d', now, it) }}.join('\\n'))
}}
"""


def main() -> int:
    """Measure all, print the table and put it into the report; 1 when not all could be measured."""
    when = moment()
    node = up(say)
    minutes: list[Minute] = []
    bursts: list[Burst] = []
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as directory, service(node, Path(directory)) as (running, storage):
            rows.append(first_line(node, running, storage))
            for _ in range(_RUNS):
                minutes.append(steady(node, running))
                bursts.append(burst(node, running))
    # It must not cost what was found.
    except (TrialFailed, NodeFailed, Refused, WebSocketException, AssertionError, pytest.fail.Exception) as error:
        say(str(error))
    rows += [*_steady_rows(minutes), *_burst_rows(bursts)]
    of = "what is in milliseconds of all their lines, all else the median"
    section = Section("A run on Kubernetes", rows, notes=[f"But for the first line, of {len(bursts)} runs: {of}."])
    print(markdown(section))
    if len(bursts) < _RUNS:
        return 1
    put(DOCS, section, when)
    return 0


@contextmanager
def service(node: Node, directory: Path) -> Iterator[tuple[Service, Path]]:
    """A service on this machine whose runs work on the cluster, and the directory behind their claim."""
    built = images.image("nextflow", say)
    node.import_image(built.archive)
    storage = deploy_runs(node, directory / "overlay", NAMESPACE)
    pipelines = directory / "pipelines"
    for name, script in (("hello", _HELLO), ("stamps", _STAMPS), ("burst", _BURST)):
        (pipelines / name).mkdir(parents=True)
        (pipelines / name / "main.nf").write_text(script)
    (storage / "hello.nf").write_text(_HELLO)
    settings = runner_settings(node, built.name, NAMESPACE, pipelines) | MANY_KEPT
    running = Service(directory / "data", **settings)
    running.start()
    try:
        yield running, storage
    finally:
        running.kill()


def first_line(node: Node, running: Service, storage: Path) -> Row:
    """From the POST to the first log line at a socket, beside `kubectl create` to the first line's own time."""
    assert (storage / "hello.nf").exists()
    ours, bare = [], []
    for number in range(_ROUNDS):
        socket = create_connection(f"ws://127.0.0.1:{running.port}{STREAM}")
        began = time.monotonic()
        run_id = running.submit("hello")
        while orjson.loads(socket.recv())["type"] != "log":
            pass
        ours.append(time.monotonic() - began)
        socket.close()
        running.ended(run_id)
        job = bare_job(node, run_id, f"bare-{number}-{int(time.time())}")
        at = time.time()
        node.run_kubectl("-n", NAMESPACE, "create", "-f", "-", given=json.dumps(job))
        name = job["metadata"]["name"]
        node.run_kubectl("-n", NAMESPACE, "wait", f"job/{name}", "--for=condition=Complete", "--timeout=60s")
        first = node.run_kubectl("-n", NAMESPACE, "logs", f"job/{name}", "--timestamps").split()[0]
        bare.append(seconds_of(first) - at)
    return compared(
        f"POST to the first log line at a socket (s, median of {_ROUNDS})",
        "`kubectl create -f job.yaml` to the first line's own time",
        ours,
        bare,
    )


def bare_job(node: Node, run_id: str, name: str) -> dict[str, Any]:
    """The run's own Job as a person would write it: no Secret, not suspended, the script on the claim."""
    found: dict[str, Any] = json.loads(
        node.run_kubectl("-n", NAMESPACE, "get", "job", f"nextflow-{run_id}", "-o", "json")
    )
    pod = found["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["command"], container["args"] = ["nextflow", "run", "/workspace/hello.nf"], ["-ansi-log", "false"]
    container["workingDir"] = "/workspace"
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "files"]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "files"]
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


@dataclass(frozen=True, slots=True)
class Minute:
    """Of a run that prints for a minute, ours and `kubectl`'s: how old lines were when they were read, API requests a
    minute, CPU microseconds a line, and the memory of our worker's processes in MiB.
    """

    ages: tuple[list[float], list[float]]
    requests: tuple[float, float]
    cpu: tuple[float, float]
    memory: list[float]


def steady(node: Node, running: Service) -> Minute:
    """A minute of a run that prints steadily. Raises TrialFailed unless each line came once and in order."""
    lines = _RATE * _SECONDS
    run_id = running.submit("stamps")
    job = f"nextflow-{run_id}"
    watched: list[float] = []
    running.wait(lambda: any(line.startswith("stamp") for line in running.lines(run_id)), 60)
    time.sleep(_SETTLE_SECONDS)  # what is still asked after the run before, is asked by then
    from_ours, from_theirs = requests(node, "nextflow-controller"), requests(node, "kubectl")
    used = Used(running.pid)
    began = time.monotonic()
    with (
        follow(node, job, watched) as (tail, reader),
        kubectl(node, "get", "jobs", "-w") as jobs,
        kubectl(node, "get", "pods", "-w") as pods,
    ):
        memories = [memory(pid) for pid in running.children("worker@")]
        seen = [at - stamp for printed, at in whole_run(running.port, run_id, lines) for stamp in printed]
        minutes = (time.monotonic() - began) / 60
        reader.join(10)
        cpu, their_cpu = used.seconds(), 0.0
        for process in (tail, jobs, pods):
            os.kill(process.pid, signal.SIGTERM)  # Popen's own would take an ended one's times with it
            their_cpu += cpu_at_end(process)
    time.sleep(1)
    if not len(seen) == len(watched) == lines:
        raise TrialFailed(f"Of {lines} lines {len(seen)} and {len(watched)} were read.")
    # The first seconds are the catching up of whoever came late.
    late = _RATE * 5
    mine = (requests(node, "nextflow-controller") - from_ours) / minutes
    his = (requests(node, "kubectl") - from_theirs) / minutes
    both = 1e6 * cpu / lines, 1e6 * their_cpu / lines
    return Minute((seen[late:], watched[late:]), (mine, his), both, memories)


def _steady_rows(minutes: Sequence[Minute]) -> list[Row]:
    if not minutes:
        return []
    ours, theirs = ([age for one in minutes for age in one.ages[side]] for side in (0, 1))
    later = [one - other for one, other in zip(ours, theirs, strict=True)]
    asked, their_asked = zip(*(one.requests for one in minutes), strict=True)
    cpu, their_cpu = zip(*(one.cpu for one in minutes), strict=True)
    return [
        latencies(f"A line at {_RATE} lines/s, printed to read", "`kubectl logs -f`, same pod", ours, theirs),
        ("… later than the same line there (ms, p50 / p99)", milliseconds(later), "", ""),
        compared(
            "API requests a run-minute, the end of the run included",
            "`kubectl logs -f` and two `kubectl get -w`",
            asked,
            their_asked,
            "{:.1f}",
        ),
        compared("CPU of all processes of the service, a line (µs)", "the same three", cpu, their_cpu, "{:,.0f}"),
        memory_row("worker@", list(map(median, zip(*(one.memory for one in minutes), strict=True))), bare_python()),
    ]


@dataclass(frozen=True, slots=True)
class Burst:
    """Of a run that prints all its lines at once, ours and `kubectl`'s: lines a second, and CPU microseconds a line."""

    rates: tuple[float, float]
    cpu: tuple[float, float]


def burst(node: Node, running: Service) -> Burst:
    """From the printing of the first line to the reading of all. Raises TrialFailed unless each came."""
    run_id = running.submit("burst")
    running.wait(lambda: "ready" in running.lines(run_id), 60)
    watched: list[float] = []
    used = Used(running.pid)
    printed: list[float] = []
    seen: list[float] = []
    with follow(node, f"nextflow-{run_id}", watched) as (tail, reader):
        for told, at in whole_run(running.port, run_id, _AT_ONCE):
            printed += told
            seen += [at - stamp for stamp in told]
        reader.join(10)
        cpu = used.seconds()
        their_cpu = cpu_at_end(tail)
    for read in (seen, watched):
        if len(read) != _AT_ONCE:
            raise TrialFailed(f"Of {_AT_ONCE:,} lines {len(read):,} were read.")
    ours, theirs = (_AT_ONCE / (printed[-1] + read[-1] - printed[0]) for read in (seen, watched))
    return Burst((ours, theirs), (1e6 * cpu / _AT_ONCE, 1e6 * their_cpu / _AT_ONCE))


def _burst_rows(bursts: Sequence[Burst]) -> list[Row]:
    if not bursts:
        return []
    other = "`kubectl logs -f`, same pod"
    rates, their_rates = zip(*(one.rates for one in bursts), strict=True)
    cpu, their_cpu = zip(*(one.cpu for one in bursts), strict=True)
    return [
        compared(f"Lines/s of {_AT_ONCE:,} printed at once, to a socket", other, rates, their_rates, "{:,.0f}"),
        compared("… CPU a line (µs)", other, cpu, their_cpu, "{:.1f}"),
    ]


@contextmanager
def follow(node: Node, job: str, into: list[float]) -> Iterator[tuple[subprocess.Popen[bytes], threading.Thread]]:
    """`kubectl logs -f` on a Job, and what reads it and gathers how old each line is."""
    with kubectl(node, "logs", "-f", f"job/{job}", output=subprocess.PIPE) as tail:
        reader = threading.Thread(target=_read_stamps, args=(tail, into), daemon=True)
        reader.start()
        yield tail, reader


@contextmanager
def kubectl(node: Node, *arguments: str, output: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A kubectl in the benchmark's namespace, which does not outlive it."""
    command = [str(node.kubectl), f"--context={node.context}", "-n", NAMESPACE, *arguments]
    process = subprocess.Popen(command, stdout=output, env=dict(node.environment()))
    try:
        yield process
    finally:
        process.kill()  # unless it has been waited for
        process.wait()


def requests(node: Node, agent: str) -> int:
    """How many requests of this kind of client the API server has answered or is answering, by its audit log."""
    found = set()
    with node.audit_log.open("rb") as log:
        for line in log:
            said = orjson.loads(line)
            if said.get("userAgent", "").startswith(agent):
                found.add(said["auditID"])
    return len(found)


def seconds_of(timestamp: str) -> float:
    """Seconds since 1970 of a time as the kubelet writes it, to the microsecond."""
    return datetime.fromisoformat(timestamp[:26] + "+00:00").timestamp()


def _read_stamps(tail: subprocess.Popen[bytes], into: list[float]) -> None:
    """Gather how old each line is when it is read, to the end."""
    assert tail.stdout
    for line in tail.stdout:
        at = time.time()
        words = line.split()
        if b"stamp" in words:
            into.append(at - float(words[words.index(b"stamp") + 1]))


if __name__ == "__main__":
    sys.exit(main())
