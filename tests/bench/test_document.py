"""A section takes its place in the report, and leaves everything else there as it was."""

import re
from pathlib import Path

import pytest
from bench import document
from bench.document import DOCS, NoPlace, moment, put
from bench.figures import Section
from bench.plot import Plot

_BEFORE, _AFTER = "Words before.\n\n", "\n\nWords after.\n\n<!-- bench: Another -->\nkept\n<!-- /bench -->\n"
_PLOT = Plot("A plot", "x", "y", {"ours": [(1, 1), (10, 2)]})
_EMPTY = Plot("Nothing", "x", "y", {})


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a report that has places for two sections, at one moment."""
    now = moment()
    monkeypatch.setattr(document, "moment", lambda: now)
    place = "<!-- bench: Some \\1 lines -->\nold\n<!-- /bench -->"
    (tmp_path / "performance.md").write_text(_BEFORE + place + _AFTER, encoding="utf-8")
    return tmp_path


def test_a_section_takes_its_place(docs: Path) -> None:
    """With the commit at which it was measured, its words and the plots that have lines; again, it replaces itself."""
    for ours in ("2", r"3 \1 µs"):
        rows = [("A line", ours, "1 other", "2.00")]
        made = Section("Some \\1 lines", rows, notes=["A note."], plots={"one": _PLOT, "none": _EMPTY})
        put(docs, made, document.moment())
        text = (docs / "performance.md").read_text(encoding="utf-8")
        assert text.startswith(f"{_BEFORE}<!-- bench: Some \\1 lines -->\n")
        assert text.endswith(f"<!-- /bench -->{_AFTER}")
        said = text[len(_BEFORE) : -len(_AFTER)]
        assert re.search(
            r"\n\*\d+ \w+ \d{4}, at (`[0-9a-f]+`( and what is changed since)?|an unknown commit)\*\n", said
        )
        assert f"| A line | {ours} | 1 other | 2.00 |" in said
        assert "\n\nA note.\n\n![A plot](plots/one.svg)\n\n" in said
        assert "old" not in said
    assert [path.name for path in (docs / "plots").iterdir()] == ["one.svg"]


def test_a_section_without_a_place_changes_nothing(docs: Path) -> None:
    """Whoever adds one is told what the document lacks."""
    before = (docs / "performance.md").read_bytes()
    with pytest.raises(NoPlace, match="<!-- bench: New -->"):
        put(docs, Section("New", [], plots={"one": _PLOT}), document.moment())
    assert (docs / "performance.md").read_bytes() == before
    assert not (docs / "plots").exists()


def test_two_commits_are_told_apart(docs: Path) -> None:
    """Whoever commits while something is measured finds both above it."""
    put(docs, Section("Another", []), "1 May 2026, at `abc`")
    text = (docs / "performance.md").read_text(encoding="utf-8")
    assert f"*1 May 2026, at `abc`, to {document.moment()}*" in text


def test_places_of_the_report_are_whole() -> None:
    """Each begins and ends, none lies within another, no two have the same title, and each section has one."""
    marks = re.findall(r"^<!-- (bench: .+|/bench) -->$", (DOCS / "performance.md").read_text("utf-8"), re.MULTILINE)
    assert marks[1::2] == ["/bench"] * (len(marks) // 2)
    places = {mark.removeprefix("bench: ") for mark in marks[::2]}
    assert len(places) == len(marks) // 2
    source = "".join(path.read_text("utf-8") for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__))
    titles = re.findall(r"""\b_?[sS]ection\(\s*f?"([^"]+)\"""", source)
    assert len(titles) > 20
    for title in titles:  # up to what only a measurement knows
        assert any(place.startswith(title.partition("{")[0]) for place in places), title
