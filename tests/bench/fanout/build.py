"""Build: what only this measurement needs, made or installed once and kept in the cache."""

import hashlib
import os
import sys
from pathlib import Path

from nfctl.cache import Say, install_once
from nfctl.programs import InstallFailed, ToolMissing, on_path, run

CENTRIFUGE_VERSION = "0.40.1"  # as its go.mod has it
WEBSOCKETS_VERSION = "17.4"
_UVLOOP_VERSION = "0.23.0"
_HERE = Path(__file__).parent


def load_program(say: Say) -> Path:
    """The client that makes the load. Raises ToolMissing."""
    return _built(_HERE / "load", say)


def centrifuge_program(say: Say) -> Path:
    """The server on the Centrifuge library. Raises ToolMissing."""
    return _built(_HERE / "peers" / "centrifuge", say)


def websockets_packages(say: Say) -> Path:
    """A folder for PYTHONPATH with the `websockets` package and uvloop. Raises ToolMissing."""

    def fill(folder: Path) -> None:
        wanted = [f"websockets=={WEBSOCKETS_VERSION}", f"uvloop=={_UVLOOP_VERSION}"]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--no-deps",
            "--only-binary=:all:",
        ]
        run([*pip, "--target", str(folder), *wanted], say, f"Fan-out: installing {' and '.join(wanted)}")

    python = sys.implementation.cache_tag
    try:
        return install_once(f"fanout-websockets-{WEBSOCKETS_VERSION}-uvloop-{_UVLOOP_VERSION}-{python}", fill, say)
    except InstallFailed as error:
        raise ToolMissing(f"No websockets package: {error}. pip must reach its index.") from error


def _built(sources: Path, say: Say) -> Path:
    name = sources.name

    def fill(folder: Path) -> None:
        command = [str(on_path("go")), "build", "-C", str(sources), "-o", str(folder / name), "-ldflags", "-s -w", "."]
        run(command, say, f"Fan-out: building {name}", {**os.environ, "CGO_ENABLED": "0"})

    try:
        return install_once(f"fanout-{name}-{_hash_of(sources)}", fill, say) / name
    except InstallFailed as error:
        raise ToolMissing(
            f"No {name} for the fan-out: {error}.\n"
            "It needs Go on PATH (https://go.dev/dl), as new as its go.mod says, that reaches its module proxy."
        ) from error


def _hash_of(sources: Path) -> str:
    content = hashlib.sha256()
    for file in sorted(sources.iterdir()):
        content.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:12]
