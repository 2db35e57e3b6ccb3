"""Ending processes."""

import os

import pytest

from shared.lifetime import kill_until_gone


def test_what_belongs_to_somebody_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may have started it as another user: that it cannot be killed is no reason to end without a word."""
    asked: list[int] = []

    def kill(pid: int, _: int) -> None:
        asked.append(pid)
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    found = iter([[1, 2], [1], []])
    kill_until_gone(lambda: next(found))
    assert asked == [1, 2, 1]
