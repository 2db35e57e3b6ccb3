"""Secrets do not leave by parameters or URLs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import redaction


@pytest.mark.parametrize(
    "name",
    ["password", "db_passwd", "SECRET", "clientSecret", "github_token", "aws_access_key_id", "apiKey", "api_key",
     "private-key-file", "privateKey", "auth", "authorization", "credentials", "bearer"],
)  # fmt: skip
def test_values_of_secret_names_are_hidden(name: str) -> None:
    """A value is hidden when its name looks like a secret's, at any depth."""
    shown = json.dumps(redaction.parameters({name: "hunter2", "deep": [{"er": {name: ["hunter2"]}}]}))
    assert "hunter2" not in shown
    assert redaction.HIDDEN in shown


@pytest.mark.parametrize("name", ["author", "reads", "outdir", "key_file_count", "genome"])
def test_other_values_are_shown(name: str) -> None:
    """What does not look like a secret is shown as it is."""
    assert redaction.parameters({name: "plain"})[name] == "plain"


@pytest.mark.parametrize("value", [None, "", True, False])
def test_what_can_be_no_secret_is_shown(value: object) -> None:
    """An empty or boolean value tells nothing, and hiding it would."""
    assert redaction.parameters({"use_token": value}) == {"use_token": value}


@pytest.mark.parametrize("value", [0, 1, 1234, 1.0])
def test_numbers_may_be_secrets(value: float) -> None:
    """A number of a secret name is hidden, also 0 and 1, which Python takes for False and True."""
    assert redaction.parameters({"password": value}) == {"password": redaction.HIDDEN}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@host/x", "https://***@host/x"),
        ("see https://me:pw@host/x and redis://:pw@db:6379/0", "see https://***@host/x and redis://***@db:6379/0"),
        ("https://host/x?mail=a@b.example", "https://host/x?mail=a@b.example"),
        ("git@host:lab/flow", "git@host:lab/flow"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("https://me:p@ss@host/x", "https://***@host/x"),
        ("https://host/x?access_token=a.b-c&n=1", "https://host/x?access_token=***&n=1"),
        ("'https://s3/x?n=1&X-Amz-Signature=ab' read", "'https://s3/x?n=1&X-Amz-Signature=***' read"),
        ("(https://host/x?token=ab) next", "(https://host/x?token=***) next"),
        ("docker://host:443/image@sha256:ab", "docker://host:443/image@sha256:ab"),
        ("what?token=x is no URL", "what?token=x is no URL"),
    ],
)
def test_userinfo_of_urls_is_hidden(url: str, shown: str) -> None:
    """User and password of every URL go, and the rest stays."""
    assert redaction.without_url_secrets(url) == shown


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text(), lambda inner: st.lists(inner), max_leaves=5)))
def test_hiding_keeps_the_shape(values: dict[str, object]) -> None:
    """Names and their order stay, the given mapping is not touched, and hiding twice changes nothing more."""
    before = json.dumps(values)
    hidden = redaction.parameters(values)
    assert list(hidden) == list(values)
    assert json.dumps(values) == before
    assert redaction.parameters(hidden) == hidden
