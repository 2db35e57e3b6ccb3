"""Where things lie in the data directory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunPlaces:
    """The files of one run. `directory` is the run's own; `launch` is shared by the runs of one session.

    `settings` is where Nextflow finds its parameters and configuration.
    """

    directory: Path
    launch: Path
    settings: Path

    @property
    def reports(self) -> Path:
        """Nextflow's own reports of the run."""
        return self.directory / "reports"

    @property
    def results(self) -> Path:
        """Where pipelines that publish to a relative `results` leave their output."""
        return self.launch / "results"


def run_places(data_dir: Path, run_id: str, session_id: str) -> RunPlaces:
    """The places of a run; pure, nothing is created."""
    directory = data_dir / "runs" / run_id
    return RunPlaces(directory, data_dir / "sessions" / session_id, directory)
