"""What the runner asks of whatever executes a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from shared.runs import Run


@dataclass(frozen=True, slots=True)
class Record:
    """One line as the run wrote it: when (RFC 3339), on which stream, and the text without its newline."""

    timestamp: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a look at the run's log gave: records that are new, and the place to go on from after them.

    `started` tells whether Nextflow is known to have started.
    """

    records: Sequence[Record]
    place: Mapping[str, Any]
    started: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run's execution ended. `code` is None when it never started or nobody saw its end."""

    code: int | None
    cancelled: bool = False
    killed: bool = False
    reason: str | None = None
    finished_at: datetime | None = None


class Cluster(Protocol):
    """Executes runs. Every method may be called again for the same run, by another process too."""

    def start(self, run: Run) -> None:
        """Start the run unless it was started before. Raises CannotStart when it never can."""

    def follow(self, run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        """All that the run writes after `place`, as it writes it, until it has ended and all is read.

        Yields at least every quarter of a second, an empty chunk if nothing is new.
        """

    def outcome(self, run: Run) -> Outcome:
        """How the run ended; to be asked once `follow` is exhausted."""

    def cancel(self, run: Run) -> None:
        """Begin to end the run, also one that has not started: it will not."""

    def check(self) -> str:
        """A sentence that says what executes runs here. Raises CannotStart when nothing could now."""
