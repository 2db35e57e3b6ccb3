"""This machine as the stage of a trial: a real Nextflow that writes down when it ran, and what it printed."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from faults.trial import MakeStage
from faults.viewer import numbers
from faults.watched_nextflow import printed_by

from shared.lifetime import marked_processes

_PIPELINE = """
params.lines = 100
params.pause = 40
params.width = 0
workflow {
    def tail = '.' * (params.width as int)
    def hurry = new File("${projectDir}/hurry")
    for( int i = 1; i <= (params.lines as int); i++ ) {
        println "number ${i} ${tail}"
        if( !hurry.exists() ) sleep(params.pause as long)
    }
}
"""


class LocalStage:
    """This machine, with a Nextflow that writes down when it ran."""

    def __init__(self, nextflow: Path, directory: Path) -> None:
        self._directory = directory
        self._journal = directory / "journal"
        script = directory / "numbered.nf"
        script.write_text(_PIPELINE)
        self.pipeline = str(script)
        self.settings: Mapping[str, str] = {
            "NEXTFLOW_BIN": str(Path(__file__).with_name("watched_nextflow.py")),
            "WATCHED_NEXTFLOW": str(nextflow),
            "WATCHED_JOURNAL": str(self._journal),
        }

    def hurry(self) -> None:
        """See `Stage.hurry`."""
        (self._directory / "hurry").touch()

    def journal(self) -> list[dict[str, Any]]:
        """See `Stage.journal`; the watched Nextflow wrote it."""
        return [json.loads(line) for line in self._journal.read_text().splitlines()] if self._journal.exists() else []

    def printed(self, run_id: str) -> list[int]:
        """The numbers in what the watched Nextflow took down before the service could see it."""
        file = printed_by(self._journal, run_id)
        return numbers(file.read_text().splitlines()) if file.exists() else []

    def left_of(self, run_id: str) -> Sequence[int]:
        """Pids of its processes."""
        return marked_processes(f"NFCTL_RUN_ID={run_id}")


def local_stage(nextflow: Path) -> MakeStage:
    """Makes stages on this machine."""
    return lambda directory: nullcontext(LocalStage(nextflow, directory))
