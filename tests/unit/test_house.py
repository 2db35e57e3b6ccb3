"""The plan of the house: what is installed under which name, and what each door needs."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shared.broker import CHECK_COMMAND, RUN_TASK

ROOT = Path(__file__).parents[2]
OURS = ("shared", "web", "worker", "nfctl")


def printed_by(code: str) -> str:
    """What a fresh Python, which has imported nothing of ours, prints."""
    settings = os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0"}  # nothing is asked of it
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=settings
    )
    return ended.stdout


@pytest.mark.parametrize("package", OURS)
def test_the_packages_are_ours_alone(package: str) -> None:
    """No other installed distribution has a package of the same name, which would hide one of the two."""
    assert set(packages_distributions().get(package, [])) == {"nextflow-controller"}


def test_the_worker_has_the_tasks_that_web_asks_for() -> None:
    """Web starts work by name only; the worker knows every name."""
    code = f"""
from celery.worker.control import Panel
from worker.app import app
print({RUN_TASK!r} in app.tasks, {CHECK_COMMAND!r} in Panel.data)
"""
    assert printed_by(code).split() == ["True", "True"]


def test_the_shim_needs_the_standard_library_alone() -> None:
    """A run's shim is small and quick: of ours it takes only what ties lives together, of others nothing."""
    code = """
import sys
before = set(sys.modules)
import worker.shim
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(new), sorted(name for name in sys.modules if name.startswith(("shared.", "worker."))))
"""
    assert printed_by(code).strip() == "['shared', 'worker'] ['shared.lifetime', 'worker.shim']"


def test_web_does_not_know_the_worker() -> None:
    """The web server is put together without a module of the worker's, nor the other way round."""
    code = "import sys, {}; print([name for name in sys.modules if name.partition('.')[0] == {!r}])"
    assert printed_by(code.format("web.app", "worker")).strip() == "[]"
    assert printed_by(code.format("worker.app", "web")).strip() == "[]"


@pytest.mark.parametrize("package", OURS)
def test_every_module_says_what_it_is(package: str) -> None:
    """Each module begins with its sentence."""
    for path in (ROOT / package).rglob("*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path
