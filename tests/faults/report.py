"""The table of what became of all trials."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from faults.trial import Verdict


@dataclass
class Row:
    """One fault and its trials."""

    name: str
    verdicts: list[Verdict] = field(default_factory=list)

    def __str__(self) -> str:
        found = self.verdicts
        counts = [sum(getattr(verdict, name) for verdict in found) for name in ("lost", "doubled", "disordered")]
        wrong = sum(bool(verdict.wrong) for verdict in found)
        seconds = [verdict.recovery for verdict in found]
        peak = max(verdict.peak_mib for verdict in found)
        numbers = [len(found), *counts, wrong]
        return (
            f"| {self.name} | {' | '.join(map(str, numbers))} "
            f"| {median(seconds):.1f} | {max(seconds):.1f} | {peak:.0f} |"
        )


def table(rows: Sequence[Row]) -> str:
    """In Markdown: counts over all trials; recovery in seconds; the most memory of one process in MiB."""
    head = "| fault | trials | lost | doubled | out of order | wrong | recovery, median | recovery, max | peak MiB |"
    return "\n".join([head, "|---|" + "---:|" * 8, *(str(row) for row in rows)])
