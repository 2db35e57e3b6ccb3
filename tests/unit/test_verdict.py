"""The judges of the fault trials: each finds what it is there to find."""

from typing import Any

import pytest
from faults.report import Row
from faults.trial import Fault, Verdict, _judge_overlap

CLEAN = Verdict(amid=True)


@pytest.mark.parametrize(
    ("found", "counts", "wrong"),
    [
        ([1, 2, 3, 4], (0, 0, 0), 0),
        ([1, 2, 4], (1, 0, 0), 0),
        ([], (4, 0, 0), 0),
        ([1, 2, 2, 3, 4], (0, 1, 0), 0),
        ([1, 3, 2, 4], (0, 0, 1), 0),
        ([1, 2, 3, 4, 9], (0, 0, 0), 1),
    ],
    ids=["whole", "one lost", "all lost", "doubled", "out of order", "never printed"],
)
def test_lines_are_compared_one_by_one(found: list[int], counts: tuple[int, int, int], wrong: int) -> None:
    """With those that were printed, the numbers 1 to 4."""
    verdict = Verdict()
    verdict.count(found, range(1, 5))
    assert (verdict.lost, verdict.doubled, verdict.disordered) == counts
    assert len(verdict.wrong) == wrong
    assert verdict.clean == (counts == (0, 0, 0) and not wrong)


@pytest.mark.parametrize("fault", [{"lost": 1}, {"doubled": 1}, {"disordered": 1}, {"wrong": ["a word"]}])
def test_one_trial_that_is_not_clean_spoils_its_row(fault: dict[str, Any]) -> None:
    """However many others there are."""
    assert Row(Fault("any", lambda _: None), [CLEAN] * 19 + [CLEAN]).clean
    assert not Row(Fault("any", lambda _: None), [CLEAN] * 19 + [Verdict(amid=True, **fault)]).clean


def test_a_fault_that_came_too_early_has_not_been_tried() -> None:
    """Unless it must come before the log."""
    early = [CLEAN, Verdict(), Verdict()]
    assert not Row(Fault("any", lambda _: None), early).clean
    assert Row(Fault("any", lambda _: None, before_log=True), early).clean


class _Stage:
    def __init__(self, *times: tuple[str, float, float]) -> None:
        self._times = times

    def journal(self) -> list[dict[str, Any]]:
        return [
            {"run_id": name, what: moment, "beside": []}
            for name, began, ended in self._times
            for what, moment in (("began", began), ("ended", ended))
        ]


class _Scene:
    def __init__(self, *times: tuple[str, float, float]) -> None:
        self.stage = _Stage(*times)
        self.verdict = Verdict()


@pytest.mark.parametrize(("began", "clean"), [(2.0, True), (2.5, True), (1.5, False)])
def test_two_runs_at_once_are_found(began: float, clean: bool) -> None:
    """By when the Nextflow of each began and ended."""
    scene: Any = _Scene(("one", 1.0, 2.0), ("two", began, 3.0))
    _judge_overlap(scene)
    assert scene.verdict.clean is clean
