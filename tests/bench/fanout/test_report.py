"""The table of many sockets: medians of a server's rounds, and who could not keep up."""

from dataclasses import fields, replace

import pytest
from bench.fanout.report import section
from bench.fanout.trial import Figures, Load
from bench.figures import Row

LOAD = Load(sockets=1_000, rate=20, seconds=6)
NONE: dict[str, float | str] = {item.name: "" if item.type == "str" else 0 for item in fields(Figures)}
WELL = replace(
    Figures(**NONE),  # type: ignore[arg-type]  # each of its own type
    wanted=1_000,
    opened=1_000,
    alive=1_000,
    deliveries=120_000,
    delivered_per_second=20_000,
    cpu=8.0,
)


def cells(ours: list[Figures], theirs: list[Figures]) -> dict[str, Row]:
    """What stands in the row of each server."""
    titles = {"ours": "ours", "centrifuge": "Go"}
    shown = section("Many sockets", titles, {LOAD: {"ours": ours, "centrifuge": theirs}})
    return {row[0]: row for row in shown.rows}


def test_a_ratio_is_of_the_medians_of_all_rounds() -> None:
    """Each round counts."""
    rows = cells([WELL, replace(WELL, cpu=6.0), replace(WELL, cpu=50.0)], [replace(WELL, cpu=16.0)])
    assert rows["ours"][6] == "0.50"
    assert rows["Go"][6] == "1.00"


@pytest.mark.parametrize("worse", [replace(WELL, behind=0.6), replace(WELL, lost=1)], ids=["late", "lost"])
def test_one_that_could_not_keep_up_in_any_round_is_marked(worse: Figures) -> None:
    """So is each ratio to it; what stands beside another is not."""
    rows = cells([WELL, WELL, WELL], [WELL, worse, WELL])
    assert rows["Go"][3] == "20,000 (lags)"
    assert rows["ours"][3] == "20,000"
    assert rows["ours"][6] == "1.00 (lags)"


def test_who_is_a_moment_late_at_the_end_does_not_lag() -> None:
    """The last frame takes its time at any server."""
    assert not replace(WELL, behind=0.4).lags
