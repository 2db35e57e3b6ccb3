"""Build: the programs of the node. Go builds its own from the sources here, once; Debian has the others."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nfctl.cache import Say, install_once
from nfctl.programs import InstallFailed, ToolMissing, apt_install, on_path, printed_by, run

KUBERNETES_VERSION = "1.34.4"
LEAST_GO = (1, 24)

CNI_DIRECTORY = Path("/usr/lib/cni")

_SOURCES = Path(__file__).parent / "node"
_VERSION_VARIABLE = "k8s.io/component-base/version"
_VERSION_FLAGS = (
    f"-X {_VERSION_VARIABLE}.gitVersion=v{KUBERNETES_VERSION} "
    f"-X {_VERSION_VARIABLE}.gitMajor={KUBERNETES_VERSION.split('.')[0]} "
    f"-X {_VERSION_VARIABLE}.gitMinor={KUBERNETES_VERSION.split('.')[1]}"
)
# What must be there, and the Debian package that brings it.
_FROM_DEBIAN: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    f"{CNI_DIRECTORY}/ptp": "containernetworking-plugins",
    "ip": "iproute2",
    "nft": "nftables",
    "openssl": "openssl",
}


@dataclass(frozen=True)
class Programs:
    """Where the programs are that Go built."""

    node: Path
    kubectl: Path
    coredns: Path
    pause: Path


def programs(say: Say) -> Programs:
    """The node's programs, built and installed where they are missing; raises ToolMissing with advice."""
    try:
        _install_packages(say)
        kubernetes = _built(
            "kubernetes", say, f"Kubernetes {KUBERNETES_VERSION}: building it (minutes, once)", _link_kubectl
        )
        coredns = _built("coredns", say, "CoreDNS: building it (a minute or two, once)")
        pause = _built("pause", say, "pause: building it")
    except InstallFailed as error:
        raise ToolMissing(
            f"No Kubernetes node: {error}.\n"
            "It needs root on Debian, and Go 1.24 or newer on PATH (https://go.dev/dl) that reaches its module proxy."
        ) from error
    return Programs(
        node=kubernetes / "kubernetes",
        kubectl=kubernetes / "kubectl",
        coredns=coredns / "coredns",
        pause=pause / "pause",
    )


def _install_packages(say: Say) -> None:
    missing = sorted({package for program, package in _FROM_DEBIAN.items() if not shutil.which(program)})
    if missing:
        apt_install(missing, say, f"Kubernetes node: installing Debian's {', '.join(missing)}")


def _built(name: str, say: Say, doing: str, finish: Callable[[Path], None] = lambda _: None) -> Path:
    sources = _SOURCES / name
    flags = "-s -w" + (f" {_VERSION_FLAGS}" if name == "kubernetes" else "")

    def fill(folder: Path) -> None:
        command = [str(_go()), "build", "-C", str(sources), "-o", str(folder / name), "-ldflags", flags, "."]
        run(command, say, doing, {**os.environ, "CGO_ENABLED": "0"})
        finish(folder)

    return install_once(f"cluster-{name}-{_hash_of(sources, flags)}", fill, say)


def _hash_of(sources: Path, flags: str) -> str:
    content = hashlib.sha256(flags.encode())
    for file in sorted(sources.iterdir()):
        content.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:12]


def _link_kubectl(folder: Path) -> None:
    # The binary goes by the name that it is called by.
    (folder / "kubectl").symlink_to("kubernetes")


def _go() -> Path:
    found = on_path("go")
    version = re.search(r"go(\d+)\.(\d+)", printed_by(found, "version"))
    if not version or (int(version[1]), int(version[2])) < LEAST_GO:
        raise InstallFailed(f"{found} is older than {'.'.join(map(str, LEAST_GO))}")
    return found
