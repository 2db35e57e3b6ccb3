"""Hints: the errors that people meet most have a sentence that helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.hints import hint_for


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("Process `A (1)` terminated with an error exit status (137)", "memory"),
        ("terminated with an error exit status (127)", "container"),
        (".command.sh: line 2: samtools: command not found", "container"),
        ("terminated with an error exit status (143)", "told to stop"),
        ("Cannot find script file: nope.nf", "pipeline's name"),
        ("Not a valid project name: ~", "pipeline's name"),
        ("Unknown project -- Make sure exists a GitHub repository", "could not be fetched"),
        ("Cannot find `x/y` at github", "could not be fetched"),
        ("Can't find any revision: Unknown revision: v9", "revision"),
        ("Unknown configuration profile: 'nope'", "profile"),
        ("Script compilation error", "place it names"),
        ("Can't find a run with the specified id: 0f4d", "resume"),
        ("Revision option cannot be used when running a local script", "leave it out"),
        ("Missing project main script: /tmp/dir/main.nf", "no main.nf"),
        ("Unable to find a Git provider config for nextflow.scm.GitUrl(https, null, x, y)", "Git server"),
        ("Unable to acquire lock on session with ID 0f4d", "same session"),
        ("No space left on device", "disk is full"),
        ("K8sResponseException: Request GET /api/v1 returned an error code=401 Unauthorized 401", "resume"),
        ("K8s pod image cannot be pulled -- Connection refused", "registry"),
        ('pods is forbidden: User "x" cannot create resource "pods"', "NEXTFLOW_SERVICE_ACCOUNT"),
        ("bash: /workspace/ab/.command.run: No such file or directory", "WORK_PVC"),
        ("No such file or directory: /data/sessions/ab/samples.csv", "relative path"),
        ("Cannot find `a/b` -- Make sure exists a GitHub repository at this address", "way to the internet"),
        ("WARN: Access to undefined parameter `x`", "a value"),
    ],
)
def test_common_errors_have_a_hint(said: str, word: str) -> None:
    """Each of these errors, as Nextflow words it, gets the hint that fits."""
    assert word in (hint_for(said) or "")


def test_other_errors_have_none() -> None:
    """Where nothing is known, nothing is said."""
    assert hint_for("No such variable: x") is None


@given(st.text())
def test_any_text_may_be_asked(text: str) -> None:
    """A hint is a sentence or nothing."""
    hint = hint_for(text)
    assert hint is None or hint.endswith(".")
