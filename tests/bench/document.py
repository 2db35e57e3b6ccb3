"""The document of the report: words, and between two comments that bear its title a place for each table."""

import re
import subprocess
from datetime import datetime
from pathlib import Path

from bench.figures import Section, table
from bench.plot import svg
from service_process import ROOT

DOCS = ROOT / "docs"
_DOCUMENT = "performance.md"
_PLOTS = "plots"


class NoPlace(Exception):
    """There is no document, or it has no place for a section of that title."""


def moment() -> str:
    """The day, and the commit that is checked out now."""
    commit = _git("rev-parse", "--short", "HEAD")
    # A report that is half written is no change of what is measured.
    changed = _git("status", "--porcelain", "--", ".", ":!docs")
    named = f"`{commit}`{' and what is changed since' if changed else ''}" if commit else "an unknown commit"
    return f"{datetime.now():%-d %B %Y}, at {named}"


def check(docs: Path) -> None:
    """Raises NoPlace when there is no document in that folder."""
    if not (docs / _DOCUMENT).is_file():
        raise NoPlace(f"{docs} has no {_DOCUMENT} with places for what is measured.")


def markdown(section: Section) -> str:
    """Its table, the words below it and its plots, as they are in the document."""
    plots = [f"![{plot.title}]({_PLOTS}/{name}.svg)" for name, plot in section.plots.items() if plot.lines]
    return "\n\n".join([table(section.headings, section.rows), *section.notes, *plots])


def put(docs: Path, section: Section, since: str) -> None:
    """Replace what the document in that folder says of a section, tell since when it was measured, and draw its plots.

    Raises NoPlace, and changes nothing.
    """
    check(docs)
    document = docs / _DOCUMENT
    begin, end = f"<!-- bench: {section.title} -->", "<!-- /bench -->"
    place = re.compile(f"(?<={re.escape(begin)}\n).*?(?={end})", re.DOTALL)
    until = moment()
    when = since if until == since else f"{since}, to {until}"
    said = f"\n*{when}*\n\n{markdown(section)}\n\n"
    text, places = place.subn(lambda _: said, document.read_text(encoding="utf-8"), count=1)
    if not places:
        raise NoPlace(f"{document} has no place for it: {begin} and {end}, a line each.")
    for name, plot in section.plots.items():
        if plot.lines:
            (docs / _PLOTS).mkdir(exist_ok=True)
            (docs / _PLOTS / f"{name}.svg").write_text(svg(plot), encoding="utf-8")
    document.write_text(text, encoding="utf-8")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    ).stdout.strip()
