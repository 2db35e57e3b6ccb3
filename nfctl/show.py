"""How things look in a terminal."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_EXACT_BELOW = 10

_COLOURS = {
    "succeeded": "32",
    "failed": "31",
    "cancelled": "33",
    "running": "36",
    "error": "31",
    "warning": "33",
}


def called() -> str:
    """How `nfctl` is called here: by its name where it is on PATH, else by its path or as a module."""
    if shutil.which("nfctl"):
        return "nfctl"
    return "python -m nfctl" if sys.argv[0].endswith("__main__.py") else os.path.relpath(sys.argv[0])


def coloured(text: str, kind: str) -> str:
    """The text in the colour of its kind, on a terminal."""
    colour = _COLOURS.get(kind)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and sys.stdout.isatty() else text


DONE = ("succeeded", "cached", "failed")
"""The counts of a process's tasks that came to an end of their own."""


def progress_line(data: Mapping[str, Any]) -> str:
    """`[ 50%] FASTQC 3/3 ✔  TRIM 1/3 (1 running)`."""
    return f"[{data['percent']:3}%] " + "  ".join(_process(process) for process in data["processes"])


def _process(process: Mapping[str, Any]) -> str:
    done = sum(process[name] for name in DONE)
    total = done + sum(process[name] for name in ("running", "pending", "aborted"))
    notes = [f"{process[name]} {word}" for name, word in _NOTES if process[name]]
    mark = " ✔" if done == total and not process["failed"] else ""
    return f"{process['name']} {done}/{total}{mark}" + (f" ({', '.join(notes)})" if notes else "")


_NOTES = (
    ("running", "running"),
    ("pending", "waiting"),
    ("cached", "cached"),
    ("failed", "failed"),
    ("retries", "retried"),
    ("aborted", "aborted"),
)


def gap(run_id: str) -> str:
    """That lines are missing before those that are shown, and where they are."""
    where = f"runs/{run_id}/log in its data directory, or on the cluster's claim, has them"
    return f"Some lines before this are no longer kept by the service; {where}."


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]], none: str) -> str:
    """Rows under headings, as wide as needed, or `none` when there is none. `columns` are pairs of key and heading."""
    if not rows:
        return none
    cells = [[heading for _, heading in columns]]
    cells += [["-" if row.get(key) is None else str(row[key]) for key, _ in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def brief(text: str, most: int = 100) -> str:
    """The text on one line, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 2] + " …"


def seconds(value: float | None) -> str:
    """`1 h 02 min`, `3 min 20 s`, `12 s`, `0.4 s`, or a dash; nothing is rounded up, as on the page."""
    if value is None:
        return "-"
    if value < _EXACT_BELOW:
        return f"{int(10 * value) / 10:g} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def size(value: int | None) -> str:
    """`5.1 MiB`, or a dash."""
    if value is None:
        return "-"
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
