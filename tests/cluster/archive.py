"""Archive: image archives as `docker save` makes them, without a Docker: written here, and brought into the node."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from cluster.control import NodeFailed
from cluster.layout import Layout


def write_program_image(program: Path, name: str, archive: Path) -> None:
    """Write an image of that name, which holds one static program and starts it."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    configuration = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "Env": ["PATH=/"], "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(configuration).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    archive.write_bytes(_tar(files, mode=0o644))


def import_archive(layout: Layout, archive: Path) -> None:
    """Bring the images of an archive into the node, under the names that they have there."""
    imported = _ctr(layout, "images", "import", str(archive))
    if imported.returncode:
        raise NodeFailed(f"{archive} cannot be imported: {imported.stderr.strip()}")


def has_image(layout: Layout, name: str) -> bool:
    """Whether the node has an image of that full name."""
    return name in _ctr(layout, "images", "list", "--quiet").stdout.split()


def containerd_answers(layout: Layout) -> bool:
    """Whether containerd is up."""
    return layout.containerd_socket.exists() and _ctr(layout, "version").returncode == 0


def _ctr(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()
