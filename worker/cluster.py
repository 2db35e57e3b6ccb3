"""What the runner asks of whatever executes a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from signal import SIGABRT, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGQUIT, SIGSEGV, SIGTERM
from typing import Any, Protocol

from shared.runs import Run

# Those that end a process from outside, or for a fault in it. Any other code above 128 is what a pipeline chose.
_DEADLY = frozenset(map(int, (SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGTERM)))


@dataclass(slots=True)  # not frozen: there is one a line, and it would take twice as long to make
class Record:
    """One line as the run wrote it: when (RFC 3339), on which stream, and the text without its newline.

    `stream` is `stdout`, `stderr`, or `all` where the two cannot be told apart. `pod` and `container` say who
    wrote it; empty where only Nextflow itself can have.
    """

    timestamp: str
    stream: str
    text: str
    pod: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Trouble that the cluster itself knows of. A cluster tells one `key` once a run."""

    key: str
    level: str
    message: str
    source: str
    task: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a look at the run gave: what is new, and the place to go on from after it.

    `started` tells whether Nextflow is known to have started.
    """

    records: Sequence[Record]
    place: Mapping[str, Any]
    started: bool
    notices: Sequence[Notice] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run's execution ended. `code` is None when it never started or nobody saw its end.

    `reason` says what the code does not, in words for people.
    """

    code: int | None
    cancelled: bool = False
    killed: bool = False
    reason: str | None = None
    finished_at: datetime | None = None

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended it, if one did: a shell, and Java, make a code of 128 and that number."""
        return self.code - 128 if self.code is not None and self.code - 128 in _DEADLY else None

    @property
    def from_outside(self) -> bool:
        """Whether something else than Nextflow ended it, so that its last words do not tell why."""
        return self.code is None or self.reason is not None or self.signal is not None


class Cluster(Protocol):
    """Executes runs. Every method may be called again for the same run, by another process too."""

    def follow(self, run: Run, place: Mapping[str, Any]) -> Iterator[Chunk]:
        """Start the run unless it was started before, then give all that it writes after `place`, as it writes it.

        Yields at least every quarter of a second, an empty chunk if nothing is new, and ends when the run has
        ended, all is read, and nothing of it is left at work. Raises CannotStart when the run never can start.
        """

    def outcome(self, run: Run) -> Outcome:
        """How the run ended; to be asked once `follow` is exhausted."""

    def cancel(self, run: Run) -> None:
        """Begin to end the run, also one that has not started: it will not. Returns at once."""

    def what_works(self) -> Mapping[str, str]:
        """What is at work here for runs of any kind, in words, by the run's id. Raises CannotStart if none can tell."""

    def check(self) -> str:
        """A sentence that says what executes runs here. Raises CannotStart when nothing could now."""
