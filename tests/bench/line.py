"""Measures the line from a run's child to a viewer, each row beside something else in the same run.

`python tests/bench/line.py` prints a Markdown table. Times are of this machine at this moment; the ratios say more.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from websocket import create_connection

sys.path.insert(0, str(Path(__file__).parents[1]))

from service_process import Service

from nfctl import tools

# Stands in for Nextflow where Nextflow itself would be what is measured: prints stamped lines at a rate.
_CHILD = f"""#!{sys.executable}
import json, sys, time
if "-params-file" not in sys.argv:
    print("nextflow version 24.10.0") or sys.exit()
parameters = json.load(open(sys.argv[sys.argv.index("-params-file") + 1]))
gap = 1 / parameters["rate"]
start = time.time()
for n in range(parameters["lines"]):
    while gap > 0.0001 and time.time() < start + n * gap:
        time.sleep(max(0, start + n * gap - time.time()))
    sys.stdout.write("stamp %.6f %d %s\\n" % (time.time(), n, "x" * parameters["width"]))
    if gap > 0.0001:
        sys.stdout.flush()
"""


def main() -> None:
    """Measure all and print the table."""
    rows = [first_line(), latency(20), latency(1000), throughput(), *memory()]
    print("| what | the service | beside it | ratio |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


@contextmanager
def service(**settings: str) -> Iterator[Service]:
    """A service in a temporary directory."""
    with tempfile.TemporaryDirectory() as directory:
        running = Service(Path(directory) / "data", **settings)
        running.start()
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def service_with_child(**settings: str) -> Iterator[Service]:
    """A service whose Nextflow is the stand-in."""
    with tempfile.TemporaryDirectory() as directory:
        child = Path(directory) / "nextflow"
        child.write_text(_CHILD)
        child.chmod(0o755)
        with service(NEXTFLOW_BIN=str(child), **settings) as running:
            yield running


def first_line() -> tuple[str, str, str, str]:
    """From the POST to the first log line at a socket, beside a bare `nextflow run` to its first line."""
    nextflow = str(tools.nextflow(lambda _: None))
    ours, bare = [], []
    with service() as running, tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "main.nf"
        script.write_text("workflow { println 'hi' }\n")
        for _ in range(5):
            socket = create_connection(f"ws://127.0.0.1:{running.port}/api/v1/pipeline/stream")
            began = time.monotonic()
            run_id = running.submit(str(script))
            while orjson.loads(socket.recv())["type"] != "log":
                pass
            ours.append(time.monotonic() - began)
            socket.close()
            running.ended(run_id)
            began = time.monotonic()
            child = subprocess.Popen(
                [nextflow, "run", str(script)], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert child.stdout
            child.stdout.readline()
            bare.append(time.monotonic() - began)
            child.communicate()
    return compared(
        "POST to the first log line (s, median of 5)", "`nextflow run` to its first line", ours, bare, "{:.2f}"
    )


def compared(what: str, other: str, ours: list[float], theirs: list[float], form: str) -> tuple[str, str, str, str]:
    mine, his = statistics.median(ours), statistics.median(theirs)
    return what, form.format(mine), f"{form.format(his)} {other}", f"{mine / his:.2f}"


def latency(rate: int) -> tuple[str, str, str, str]:
    """From a line's writing to its reading at a socket, beside `tail -F` on the same run's log."""
    lines = min(rate * 10, 5000)
    with service_with_child(LOG_RETENTION_LINES="100000") as running:
        tailed: list[float] = []
        run_id = running.submit("bench", parameters={"rate": rate, "lines": lines, "width": 80})
        log = running.data_dir / "runs" / run_id / "log"
        running.wait(lambda: log.exists(), 10)
        tail = subprocess.Popen(["tail", "-n", "+1", "-F", str(log)], stdout=subprocess.PIPE)
        reader = threading.Thread(target=read_stamps, args=(tail, tailed, lines), daemon=True)
        reader.start()
        seen = [at - stamp for event, at in socket_events(running, run_id) for stamp in stamps(event)]
        reader.join(10)
        tail.kill()
    assert len(seen) == lines, f"{len(seen)} of {lines}"
    # The first second is the catching up of whoever came late.
    ours, theirs = seen[rate:], tailed[rate:]
    return (
        f"A line at {rate} lines/s, written to read (ms, p50 / p99)",
        f"{1000 * quantile(ours, 0.5):.1f} / {1000 * quantile(ours, 0.99):.1f}",
        f"{1000 * quantile(theirs, 0.5):.1f} / {1000 * quantile(theirs, 0.99):.1f} `tail -F` of the run's log",
        f"{quantile(ours, 0.5) / quantile(theirs, 0.5):.1f} / {quantile(ours, 0.99) / quantile(theirs, 0.99):.1f}",
    )


def throughput() -> tuple[str, str, str, str]:
    """Lines a second of one run that prints as fast as it can, all the way to a socket, beside `cat` of its log."""
    lines = 200_000
    with service_with_child(LOG_RETENTION_LINES="1000000", LOG_RETENTION_BYTES="1000000000") as running:
        began = time.monotonic()
        run_id = running.submit("bench", parameters={"rate": 10**9, "lines": lines, "width": 80})
        count = sum(len(stamps(event)) for event, _ in socket_events(running, run_id))
        ours = lines / (time.monotonic() - began)
        assert count == lines, f"{count} of {lines}"
        began = time.monotonic()
        subprocess.run(["cat", str(running.data_dir / "runs" / run_id / "log")], stdout=subprocess.DEVNULL, check=True)
        theirs = lines / (time.monotonic() - began)
    return (
        f"Lines/s of {lines:,} printed at once, POST to the last at a socket",
        f"{ours:,.0f}",
        f"{theirs:,.0f} `cat`",
        f"{ours / theirs:.4f}",
    )


def memory() -> list[tuple[str, str, str, str]]:
    """Proportional set size of each process with ten viewers at work, beside a bare Python's."""
    bare = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    time.sleep(1)
    reference = pss(bare.pid)
    bare.communicate(b"\n")
    rows = []
    with service_with_child() as running:
        run_id = running.submit("bench", parameters={"rate": 100, "lines": 1000, "width": 80})
        sockets = [
            create_connection(f"ws://127.0.0.1:{running.port}/api/v1/pipeline/stream?run_id={run_id}")
            for _ in range(10)
        ]
        time.sleep(5)
        shim = running.of_run(run_id)
        programs = ("redis-server", "worker@", "worker.reconciler", "gunicorn", "flower")
        names: dict[str, list[int]] = {name: running.children(name) for name in programs}
        names["the run's shim"] = [parent(shim[0])]
        for name, pids in names.items():
            each = [pss(pid) for pid in pids]
            rows.append(
                (
                    f"Memory of {name} (MiB PSS, {len(each)} processes)",
                    " + ".join(f"{one:.0f}" for one in each),
                    f"{reference:.0f} bare Python",
                    f"{sum(each) / reference:.1f}",
                )
            )
        for socket in sockets:
            socket.close()
        running.ended(run_id)
    return rows


def socket_events(running: Service, run_id: str) -> Iterator[tuple[dict[str, Any], float]]:
    """Each event of a run at a plain socket, with the time of its reading."""
    socket = create_connection(
        f"ws://127.0.0.1:{running.port}/api/v1/pipeline/stream?run_id={run_id}&since=0", skip_utf8_validation=True
    )
    while True:
        message = socket.recv()
        at = time.time()
        event = orjson.loads(message)
        yield event, at
        if event["type"] == "complete":
            return


def stamps(event: dict[str, Any]) -> list[float]:
    if event["type"] != "log":
        return []
    return [float(line["message"].split()[1]) for line in event["data"]["lines"] if line["message"].startswith("stamp")]


def read_stamps(tail: subprocess.Popen[bytes], into: list[float], lines: int) -> None:
    assert tail.stdout
    for line in tail.stdout:
        at = time.time()
        words = line.split()
        if b"stamp" in words:
            into.append(at - float(words[words.index(b"stamp") + 1]))
        if len(into) == lines:
            return


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


if __name__ == "__main__":
    main()
