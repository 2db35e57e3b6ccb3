#!/usr/bin/env python3
"""Stands in for Nextflow: starts the real one, and writes down where no service looks when it ran, beside whom, what it
printed, and how it ended.

The environment names the real one (`WATCHED_NEXTFLOW`) and the journal (`WATCHED_JOURNAL`), which gets a JSON object a
line. So its own path is always the same, and it is tried out only once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from shared.lifetime import end_with_parent

_MARK = "NFCTL_RUN_ID"


def main() -> None:
    """What Nextflow itself would have done, two lines in the journal, and a copy of what it printed."""
    nextflow, journal, arguments = os.environ["WATCHED_NEXTFLOW"], os.environ["WATCHED_JOURNAL"], sys.argv[1:]
    run_id = os.environ.get(_MARK)
    if run_id is None:
        sys.exit(subprocess.call([nextflow, *arguments]))
    beside = _alive(Path(journal))
    child = subprocess.Popen([nextflow, *arguments], stdout=subprocess.PIPE, preexec_fn=end_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    _write(journal, {"began": time.time(), "run_id": run_id, "pid": child.pid, "beside": beside})
    assert child.stdout is not None
    with printed_by(Path(journal), run_id).open("ab", buffering=0) as copy:
        while data := os.read(child.stdout.fileno(), 65_536):
            copy.write(data)
            _pass_on(data)
    code = child.wait()
    code = 128 - code if code < 0 else code
    _write(journal, {"ended": time.time(), "run_id": run_id, "code": code})
    sys.exit(code)


def printed_by(journal: Path, run_id: str) -> Path:
    """Where the copy is of what a run printed."""
    return journal.with_name(f"{run_id}.out")


def _pass_on(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _alive(journal: Path) -> list[str]:
    """The runs whose Nextflow is at work just now."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    begun = [entry for entry in map(json.loads, lines) if "began" in entry]
    return [entry["run_id"] for entry in begun if _is_run(entry["pid"], entry["run_id"])]


def _is_run(pid: int, run_id: str) -> bool:
    try:
        return f"{_MARK}={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _write(journal: str, entry: dict[str, object]) -> None:
    with Path(journal).open("a") as file:
        file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
