"""The table of what became of all trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from faults.trial import Fault, Verdict


@dataclass(frozen=True)
class Row:
    """One fault and its trials."""

    fault: Fault
    verdicts: Sequence[Verdict]

    @property
    def clean(self) -> bool:
        """Whether each trial was, and half of them at least came amid the log if the fault can."""
        enough = self.fault.before_log or 2 * len(self._amid) >= len(self.verdicts)
        return enough and all(verdict.clean for verdict in self.verdicts)

    @property
    def _amid(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.amid]

    def __str__(self) -> str:
        found = self.verdicts
        counts = [sum(getattr(verdict, name) for verdict in found) for name in ("lost", "doubled", "disordered")]
        wrong = sum(bool(verdict.wrong) for verdict in found)
        # While the run starts nothing is printed, so what comes after the fault says nothing of the service.
        seconds = [verdict.recovery for verdict in self._amid or found]
        peak = max(verdict.peak_mib for verdict in found)
        numbers = [len(found), len(self._amid), *counts, wrong]
        return (
            f"| {self.fault.name} | {' | '.join(map(str, numbers))} "
            f"| {median(seconds):.1f} | {max(seconds):.1f} | {peak:.0f} |"
        )


def table(rows: Sequence[Row]) -> str:
    """In Markdown: counts over all trials; recovery in seconds, amid the log; the most memory of one process in MiB."""
    columns = ["trials", "amid the log", "lost", "doubled", "out of order", "wrong"]
    columns += ["recovery, median", "recovery, max", "peak MiB"]
    head = f"| fault | {' | '.join(columns)} |"
    return "\n".join([head, "|---|" + "---:|" * len(columns), *(str(row) for row in rows)])
