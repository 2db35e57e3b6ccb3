"""Settings: the only place that reads the environment and `.env`.

Each setting is one field: its name in capitals is the key, its metadata the sentence in `.env.example`
and the check that a value must pass.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from shared.errors import BadSetting

_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _whole(least: int, most: int) -> tuple[Callable[[str], int], str]:
    def read(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return read, f"takes a whole number from {least} to {most}"


def _choice(*names: str) -> tuple[Callable[[str], str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return read, "takes " + " or ".join(names)


def _matching(pattern: str, takes: str) -> tuple[Callable[[str], str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return read, takes


def _listed(pattern: str, takes: str) -> tuple[Callable[[str], tuple[str, ...]], str]:
    def read(text: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in text.split(",") if item.strip())
        if not all(re.fullmatch(pattern, item) for item in items):
            raise ValueError(text)
        return items

    return read, takes


def _path(takes: str) -> tuple[Callable[[str], Path], str]:
    return lambda text: Path(text).expanduser().absolute(), takes


def _absolute(takes: str) -> tuple[Callable[[str], Path], str]:
    def read(text: str) -> Path:
        path = Path(text)
        if not path.is_absolute() or path == Path("/") or ".." in path.parts:
            raise ValueError(text)
        return path

    return read, takes


def _setting(default: str, reader: tuple[Callable[[str], Any], str], says: str, *, secret: bool = False) -> Any:
    read, takes = reader
    return field(
        repr=not secret,
        metadata={"default": default, "read": read, "takes": takes, "says": says, "secret": secret},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, read and checked."""

    redis_url: str = _setting(
        "",
        _matching(r"|(rediss?|unix)://\S+", "takes a redis://, rediss:// or unix:// URL, or nothing"),
        "The Redis that keeps runs, events and the Celery queue. Empty: `nfctl up` runs a private one.",
        secret=True,
    )
    runner: str = _setting(
        "local",
        _choice("local", "kubernetes"),
        "Where runs execute: `local`, on the machine of the worker; `kubernetes`, as Jobs of a cluster.",
    )
    kube_context: str = _setting(
        "",
        _matching(r".*", "takes the name of a context of the kubeconfig, or nothing"),
        "The cluster to use. Empty: the one the worker itself runs in, else the kubeconfig's current context.",
    )
    nextflow_namespace: str = _setting(
        "nextflow-runs",
        _matching(_NAME, "takes the name of a namespace"),
        "The namespace of the Jobs and of Nextflow's task pods. Keep no other Secrets in it: pipelines can read them.",
    )
    nextflow_service_account: str = _setting(
        "nextflow",
        _matching(_NAME, "takes the name of a service account"),
        "The service account of Nextflow, which may make pods in that namespace.",
    )
    nextflow_image: str = _setting(
        "nextflow/nextflow:24.10.0",
        _matching(r"\S+", "takes the name of an image"),
        "The image that Nextflow runs in on Kubernetes, and tasks that name no container.",
    )
    nextflow_cpu: str = _setting(
        "500m",
        _matching(r"[1-9]\d*m?", "takes an amount of CPU such as 500m or 2"),
        "The CPU that Nextflow itself asks for on Kubernetes; its tasks ask for their own.",
    )
    nextflow_memory: str = _setting(
        "2Gi",
        _matching(r"[1-9]\d*[MG]i", "takes an amount of memory such as 2Gi or 1500Mi"),
        "The memory that Nextflow itself has on Kubernetes; its tasks ask for their own.",
    )
    work_pvc: str = _setting(
        "nextflow-work",
        _matching(_NAME, "takes the name of a claim"),
        "The volume claim, ReadWriteMany, that Nextflow and its tasks share.",
    )
    work_mount_path: Path = _setting(
        "/workspace",
        _absolute("takes an absolute path"),
        "Where that claim is mounted, in the same place for Nextflow and its tasks.",
    )
    job_active_deadline_seconds: int = _setting(
        "604800", _whole(60, 315_360_000), "Seconds after which Kubernetes stops a run, whatever it does."
    )
    job_ttl_seconds_after_finished: int = _setting(
        "259200",
        _whole(3600, 315_360_000),
        "Seconds after which Kubernetes removes the Job of an ended run, and with it `kubectl logs`.",
    )
    data_dir: Path = _setting(
        "data", _path("takes a directory"), "All that is kept on disk: Redis' files, logs, work and results."
    )
    pipelines_dir: Path = _setting(
        "examples",
        _path("takes a directory"),
        "Pipelines named by a relative path are looked up here, and `test_workflows.yaml` here is the catalog.",
    )
    nextflow_bin: str = _setting(
        "",
        _matching(r".*", "takes the path of an executable"),
        "The Nextflow to run. Empty: the one on PATH, or the one that `nfctl up` installs.",
    )
    host: str = _setting(
        "127.0.0.1",
        _matching(r"[\w.:-]+", "takes an address"),
        "The address to serve on. Any but a loopback one needs AUTH_TOKENS.",
    )
    port: int = _setting("8000", _whole(1, 65535), "The port of the API, the socket and the page.")
    web_processes: int = _setting("1", _whole(1, 64), "Processes that answer requests.")
    socket_processes: int = _setting(
        "1",
        _whole(0, 64),
        "Processes that hold open sockets. Set one for each 2,000 that are to be open, up to the number of processors."
        " 0: those that answer requests hold them.",
    )
    flower_port: int = _setting("5555", _whole(0, 65535), "Flower's port, on 127.0.0.1. 0: no Flower.")
    flower_url: str = _setting(
        "",
        _matching(r"|https?://\S+", "takes an http:// or https:// URL, or nothing"),
        "Where people reach Flower, for the link on the page. Empty: 127.0.0.1 and FLOWER_PORT.",
    )
    auth_tokens: tuple[str, ...] = _setting(
        "",
        _listed(r"[\w.~+/=-]{16,}", "takes tokens of 16 or more letters, digits or ._~+/=-, with commas between"),
        "Bearer tokens that may use the API. Empty: open, which is allowed on loopback only.",
        secret=True,
    )
    allowed_origins: tuple[str, ...] = _setting(
        "",
        _listed(r"https?://[^\s/,*]+", "takes origins such as https://lab.example, with commas between"),
        "Other sites whose pages may use the API and the socket. The service's own page always may.",
    )
    max_websocket_connections: int = _setting(
        "1000",
        _whole(1, 1_000_000),
        "Sockets open at once, over all web processes; one more is closed with 1013.",
    )
    rate_limit: str = _setting(
        "600/minute",
        _matching(r"[1-9]\d* ?(/|per) ?\d* ?(second|minute|hour|day)s?", "takes a limit such as 600/minute"),
        "Requests a client may make; health, metrics, the page and the socket do not count.",
    )
    run_history_limit: int = _setting(
        "200", _whole(1, 100_000), "Ended runs that are kept in Redis; files in DATA_DIR stay until you delete them."
    )
    run_ttl_minutes: int = _setting("10080", _whole(1, 5_256_000), "Minutes an ended run is kept.")
    queue_limit: int = _setting("1000", _whole(0, 100_000), "Runs that may wait.")
    log_retention_lines: int = _setting(
        "10000",
        _whole(50, 10_000_000),
        "Log lines kept in Redis a run; the whole log stays in DATA_DIR, or on the claim.",
    )
    log_retention_bytes: int = _setting(
        "8388608",
        _whole(1_000_000, 1 << 40),
        "Bytes of events kept in Redis a run, whatever the number of lines.",
    )
    cancel_grace_seconds: int = _setting(
        "30",
        _whole(0, 86_400),
        "Seconds that Nextflow has to stop its tasks after a cancel, before it is killed (on Kubernetes 120 at the "
        "least, as it has pods to delete).",
    )

    @property
    def on_loopback(self) -> bool:
        """Whether the service is reached from its own machine only."""
        return self.host in _LOOPBACK


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process: the environment first, then `.env` in the working directory.

    Raises BadSetting, whose text is one line that names the key, the value and what it takes.
    """
    if environment is None:
        from_file = {key: value for key, value in dotenv_values(".env").items() if value is not None}
        environment = from_file | dict(os.environ)
    settings = Settings(**{item.name: _read(item, environment) for item in fields(Settings)})
    _check_together(settings)
    return settings


def mistyped() -> list[str]:
    """A sentence for each key of `.env` that is no setting but looks like one; others may have keys there too."""
    known = [item.name.upper() for item in fields(Settings)]
    found = {key: get_close_matches(key, known, 1, 0.75) for key in dotenv_values(".env") if key not in known}
    return [f".env sets {key}, which is no setting. Did you mean {near[0]}?" for key, near in found.items() if near]


def load_or_exit() -> Settings:
    """The settings of a process that needs Redis; a bad one ends it with its one line on stderr."""
    try:
        settings = load()
        if not settings.redis_url:
            raise BadSetting("REDIS_URL", "", "takes the URL of a Redis here; only `nfctl up` starts one of its own")
    except BadSetting as error:
        sys.exit(str(error))
    return settings


def example() -> str:
    """The text of `.env.example`."""
    parts = ["# Settings of the service. Copy to `.env` and change what you need; the values here are the defaults."]
    for item in fields(Settings):
        meta = item.metadata
        parts.append(f"# {meta['says']} It {meta['takes']}.\n#{item.name.upper()}={meta['default']}")
    return "\n\n".join(parts) + "\n"


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment without the values that only the service itself may know."""
    secret = {item.name.upper() for item in fields(Settings) if item.metadata["secret"]}
    return {key: value for key, value in environment.items() if key not in secret and not key.startswith("FLOWER_")}


def _read(item: "Field[Any]", environment: Mapping[str, str]) -> Any:
    assert item.default is MISSING  # noqa: S101 - defaults are text, so that they pass the same check
    key = item.name.upper()
    text = environment.get(key, "").strip() or item.metadata["default"]
    try:
        return item.metadata["read"](text)
    except ValueError:
        shown = "…" if item.metadata["secret"] else text
        raise BadSetting(key, shown, item.metadata["takes"]) from None


def _check_together(settings: Settings) -> None:
    if settings.flower_port == settings.port:
        raise BadSetting("FLOWER_PORT", str(settings.flower_port), "takes another port than PORT, or 0")
    if not settings.on_loopback and not settings.auth_tokens:
        raise BadSetting(
            "HOST",
            settings.host,
            "takes a loopback address while AUTH_TOKENS is empty; set AUTH_TOKENS to serve others",
        )
