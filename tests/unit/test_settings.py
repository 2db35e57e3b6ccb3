"""Settings: each is checked, a bad one is told in one line, and none shows a secret."""

import dataclasses
from pathlib import Path

import pytest

from shared import settings
from shared.errors import BadSetting

ROOT = Path(__file__).parents[2]
TOKEN = "a-long-enough-token"
BAD = [
    ("REDIS_URL", "http://localhost"),
    ("RUNNER", "slurm"),
    ("HOST", "not an address"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("WEB_PROCESSES", "0"),
    ("SOCKET_PROCESSES", "-1"),
    ("FLOWER_PORT", "-1"),
    ("FLOWER_URL", "flower"),
    ("AUTH_TOKENS", "short"),
    ("AUTH_TOKENS", f"{TOKEN},with space inside"),
    ("ALLOWED_ORIGINS", "*"),
    ("ALLOWED_ORIGINS", "https://lab.example/path"),
    ("ALLOWED_ORIGINS", "lab.example"),
    ("MAX_WEBSOCKET_CONNECTIONS", "0"),
    ("RATE_LIMIT", "many"),
    ("RATE_LIMIT", "600/fortnight"),
    ("RATE_LIMIT", "0/minute"),
    ("RUN_HISTORY_LIMIT", "0"),
    ("RUN_TTL_MINUTES", "1.5"),
    ("QUEUE_LIMIT", "-1"),
    ("LOG_RETENTION_LINES", "49"),
    ("LOG_RETENTION_BYTES", "1"),
    ("CANCEL_GRACE_SECONDS", "soon"),
    ("NEXTFLOW_NAMESPACE", "Not_A_Name"),
    ("NEXTFLOW_SERVICE_ACCOUNT", "-"),
    ("NEXTFLOW_IMAGE", "two words"),
    ("NEXTFLOW_CPU", "half"),
    ("NEXTFLOW_MEMORY", "2 GB"),
    ("WORK_PVC", "a/b"),
    ("WORK_MOUNT_PATH", "workspace"),
    ("WORK_MOUNT_PATH", "/"),
    ("WORK_MOUNT_PATH", "/a/../b"),
    ("JOB_ACTIVE_DEADLINE_SECONDS", "0"),
    ("JOB_TTL_SECONDS_AFTER_FINISHED", "5"),
]


def takes(key: str) -> str:
    found: str = next(item for item in dataclasses.fields(settings.Settings) if item.name == key.lower()).metadata[
        "takes"
    ]
    return found


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_value_is_told_in_one_line(key: str, value: str) -> None:
    """The error names the key, the value and what the key takes; a secret's value it does not name."""
    with pytest.raises(BadSetting) as caught:
        settings.load({key: value})
    said = str(caught.value)
    assert caught.value.key == key
    assert said.startswith(f"{key}=")
    assert takes(key) in said
    assert "\n" not in said
    assert (repr(value) in said) is (key not in ("REDIS_URL", "AUTH_TOKENS"))


def test_every_setting_but_paths_refuses_something() -> None:
    """No setting is read without a check, but those that may be any text."""
    unchecked = {"DATA_DIR", "PIPELINES_DIR", "NEXTFLOW_BIN", "KUBE_CONTEXT"}
    assert {key for key, _ in BAD} | unchecked == {item.name.upper() for item in dataclasses.fields(settings.Settings)}


def test_the_defaults_are_good() -> None:
    """An empty environment makes settings, and an empty value is the default."""
    assert settings.load({}) == settings.load({"PORT": "", "RUNNER": " "})
    assert settings.load({}).port == 8000


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "lab.example", "::"])  # noqa: S104 - refused is the point
def test_serving_others_needs_tokens(host: str) -> None:
    """An address that others can reach is refused until tokens are set."""
    with pytest.raises(BadSetting, match=r"HOST=.*AUTH_TOKENS"):
        settings.load({"HOST": host})
    assert settings.load({"HOST": host, "AUTH_TOKENS": TOKEN}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_tokens(host: str) -> None:
    """On its own machine the service may be open."""
    assert settings.load({"HOST": host}).on_loopback


def test_lists_are_cut_at_commas() -> None:
    """Origins and tokens are lists; spaces and empty items between commas do not count."""
    made = settings.load(
        {"ALLOWED_ORIGINS": " https://a.example ,, http://b:8080,", "AUTH_TOKENS": f"{TOKEN},{TOKEN}2"}
    )
    assert made.allowed_origins == ("https://a.example", "http://b:8080")
    assert made.auth_tokens == (TOKEN, f"{TOKEN}2")


def test_settings_do_not_show_their_secrets() -> None:
    """The text of settings, as a trace would print it, holds no password and no token."""
    made = settings.load({"REDIS_URL": "redis://:hunter2@db", "AUTH_TOKENS": TOKEN})
    assert "hunter2" not in repr(made)
    assert TOKEN not in repr(made)


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the working directory counts where the environment is silent."""
    (tmp_path / ".env").write_text("PORT=9001\nQUEUE_LIMIT=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "9002")
    monkeypatch.delenv("QUEUE_LIMIT", raising=False)
    made = settings.load()
    assert (made.port, made.queue_limit) == (9002, 7)


def test_a_mistyped_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the keys in `.env` that are no settings, those that look like one; others belong to somebody else."""
    monkeypatch.chdir(tmp_path)
    assert settings.mistyped() == []
    (tmp_path / ".env").write_text("PRT=8001\nQUEUE_LIMIT=7\nCOMPOSE_PROFILES=flower\nNXF_OPTS=-Xmx1g\n")
    assert settings.mistyped() == [".env sets PRT, which is no setting. Did you mean PORT?"]


def test_the_example_file_is_up_to_date() -> None:
    """`.env.example` holds every setting with its sentence and default, as the code has them."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert text == settings.example()
    for item in dataclasses.fields(settings.Settings):
        assert f"#{item.name.upper()}={item.metadata['default']}\n" in text


def test_the_example_file_changes_nothing() -> None:
    """With every value of the example set, the settings are the defaults."""
    lines = (line[1:] for line in settings.example().splitlines() if line.startswith("#") and "=" in line)
    values = dict(line.split("=", 1) for line in lines if not line.startswith(" "))
    assert settings.load(values) == settings.load({})


def test_children_do_not_inherit_secrets() -> None:
    """What pipelines run with has neither the service's tokens, nor its Redis, nor Flower's password."""
    given = {"AUTH_TOKENS": TOKEN, "REDIS_URL": "redis://x", "FLOWER_BASIC_AUTH": "a:b", "PATH": "/bin", "PORT": "1"}
    assert settings.without_secrets(given) == {"PATH": "/bin", "PORT": "1"}
