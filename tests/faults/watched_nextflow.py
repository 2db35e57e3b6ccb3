"""Starts the real Nextflow and writes down, where the service does not look, when it ran, beside whom, how it ended.

`python watched_nextflow.py NEXTFLOW JOURNAL ARGUMENT...`; the journal gets a JSON object a line.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shared.lifetime import end_with_parent

_MARK = "NFCTL_RUN_ID"


def main() -> None:
    """What Nextflow itself would have done, and two lines in the journal."""
    nextflow, journal, *arguments = sys.argv[1:]
    run_id = os.environ.get(_MARK)
    if run_id is None:
        sys.exit(subprocess.call([nextflow, *arguments]))
    beside = _alive(Path(journal))
    child = subprocess.Popen([nextflow, *arguments], preexec_fn=end_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    _write(journal, {"began": time.time(), "run_id": run_id, "pid": child.pid, "beside": beside})
    code = child.wait()
    code = 128 - code if code < 0 else code
    _write(journal, {"ended": time.time(), "run_id": run_id, "code": code})
    sys.exit(code)


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
