"""Images: what the project's own Dockerfile makes, built by buildah without Docker, as archives for `ctr` and Docker.

`python -m cluster.images [TARGET …]`, with `tests` on PYTHONPATH, prints the name and the archive of each.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfctl.cache import Say, cache_directory, install_once, locked
from nfctl.programs import InstallFailed, ToolMissing, apt_install, run

ROOT = Path(__file__).parents[2]
TARGETS: Mapping[str, str] = {
    "service": "nextflow-controller",
    "nextflow": "nextflow-controller-nextflow",
    "worker-local": "nextflow-controller-worker-local",
}
"""The targets of the Dockerfile, and the name of each one's image."""

REDIS = "redis"
"""What stands in for the official image of Redis; its Dockerfile is a test's own."""

KEPT = 2
"""How many archives of a target stay: the newest ones."""

_BASE = "docker.io/library/debian:bookworm-slim"
# As in Docker's slim images: no manuals, no translations, not even the folders for them.
_LEFT_OUT = ("/usr/share/man", "/usr/share/locale", "/usr/share/info", "/usr/share/doc")
# The build reads the machine's certificates and its package indexes through these links, and no image has them.
_LINKED = {"/etc/pip.conf": "pip.conf", "/etc/mavenrc": "mavenrc", "/root/.m2/settings.xml": "settings.xml"}
_HOST = "/run/host"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_JAVA_CERTIFICATES = Path("/etc/ssl/certs/java/cacerts")
# Nextflow's image is the same whatever becomes of the service.
_INPUTS_OF_NEXTFLOW = ("Dockerfile", "nfctl/nextflow.bash", "nfctl/pom.xml")
_REDIS_FILE = "tests/cluster/redis.Dockerfile"
_MOST_LAYERS = 600


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its name, whose tag tells its content, and the docker-archive with it."""

    name: str
    archive: Path


@dataclass(frozen=True, slots=True)
class Images:
    """What a cluster needs."""

    service: Image
    nextflow: Image
    redis: Image


def build(say: Say) -> Images:
    """The images of this checkout, built where they are missing. Raises ToolMissing with advice."""
    return Images(image("service", say), image("nextflow", say), image(REDIS, say))


def image(target: str, say: Say) -> Image:
    """The image of one target of the Dockerfile, built unless its like was. Raises ToolMissing with advice."""
    content = content_hash(target)
    name = f"{_plain_name(target)}:test-{content}"
    try:
        folder = install_once(f"image-{target}-{content}", lambda folder: _fill(folder, target, name, say), say)
    except InstallFailed as error:
        raise ToolMissing(
            f"No image {name}: {error}.\nIt takes root on Debian, and ways to Debian's, PyPI's and Maven's packages."
        ) from error
    os.utime(folder)
    _remove_old(target)
    return Image(name, folder / "image.tar")


def content_hash(target: str) -> str:
    """What tells two images of a target apart: all that goes into one."""
    inputs = {"nextflow": _INPUTS_OF_NEXTFLOW, REDIS: (_REDIS_FILE,)}.get(target) or _inputs()
    content = hashlib.sha256(_base_name().encode())
    for path in sorted(file for name in inputs for file in _files(ROOT / name)):
        executable = os.access(path, os.X_OK)
        content.update(f"{path.relative_to(ROOT)}\0{executable}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()[:12]


def _inputs() -> Sequence[str]:
    """What the build is given: all that .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _fill(folder: Path, target: str, name: str, say: Say) -> None:
    _install_packages(say)
    # The layers are every checkout's; one build at a time can take them from the last.
    with locked("images", say):
        _drop_many_layers()
        _have_base(say)
        place = [f"--volume={_host_directory()}:{_HOST}:ro", "--isolation=chroot", "--network=host", "--pull-never"]
        # One name a target, which moves: what bore it stays, without a name, for its layers.
        what = [f"--file={ROOT / _REDIS_FILE}"] if target == REDIS else [f"--target={target}"]
        build = ["bud", *place, "--layers", *what, f"--tag={_plain_name(target)}", str(ROOT)]
        _buildah(build, say, f"{name}: building it (a minute or two at first)")
        if not name.endswith(content_hash(target)):
            raise InstallFailed("the checkout changed while it was built; try again")
        archive = f"docker-archive:{folder / 'image.tar'}:{name}"
        _buildah(["push", _plain_name(target), archive], say, f"{name}: writing its archive")


def _plain_name(target: str) -> str:
    return TARGETS.get(target, target)


def _install_packages(say: Say) -> None:
    if os.geteuid() != 0:
        raise InstallFailed("buildah needs root here")
    missing = [program for program in ("buildah", "mmdebstrap") if not shutil.which(program)]
    if missing:
        apt_install(missing, say, f"Images: installing Debian's {' and '.join(missing)}")


def _have_base(say: Say) -> None:
    """Have Docker's Debian image, or rather its twin: a machine without a registry can make one."""
    if _succeeds(["inspect", "--type=image", _base_name()]):
        return
    root = install_once(_base_name(), lambda folder: _debootstrap(folder, say), say) / "root.tar"
    _remove_old("base")
    container = _buildah(["from", "scratch"], say, "Images: making the base image").split()[-1]
    _buildah(["add", container, str(root), "/"], say, "Images: filling the base image")
    _buildah(["config", "--cmd=bash", container], say, "Images: naming the base image")
    _buildah(["commit", "--rm", container, _base_name()], say, "Images: keeping the base image")
    _buildah(["tag", _base_name(), _BASE], say, "Images: naming the base image")


def _debootstrap(folder: Path, say: Say) -> None:
    run([*_debootstrap_command(), "bookworm", str(folder / "root.tar")], say, "Images: fetching Debian")


def _debootstrap_command() -> Sequence[str]:
    links = " && ".join(f'ln -s {_HOST}/{source} "$1"{path}' for path, source in _LINKED.items())
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        # Debian's package that merges /usr brings all of Perl; here it is merged from the start.
        "--include=usr-is-merged",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *(f"--dpkgopt=path-exclude={folder}/*" for folder in _LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--customize-hook=cd "$1" && rm -rf {" ".join(folder.lstrip("/") for folder in _LEFT_OUT[:3])}',
        f'--customize-hook=mkdir "$1"{_HOST} "$1"/root/.m2 && {links}',
    ]


def _base_name() -> str:
    """The base by its recipe, so that a new recipe is a new base."""
    recipe = "\n".join(_debootstrap_command())
    return f"image-base-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def _host_directory() -> Path:
    """What the build sees of this machine, and no image has: certificates, and where packages come from."""
    directory = _storage() / "host"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    pip, maven = _pip_settings(), ""
    if _copied(Path(os.environ.get("SSL_CERT_FILE", _CERTIFICATES)), directory / "ca.crt"):
        pip.append(f"cert = {_HOST}/ca.crt")
    if _copied(_JAVA_CERTIFICATES, directory / "cacerts"):
        maven = f'MAVEN_OPTS="$MAVEN_OPTS -Djavax.net.ssl.trustStore={_HOST}/cacerts"\n'
    _copied(Path.home() / ".m2" / "settings.xml", directory / "settings.xml")
    (directory / "pip.conf").write_text("\n".join(["[global]", *pip, ""]))
    (directory / "mavenrc").write_text(maven)
    return directory


def _copied(source: Path, target: Path) -> bool:
    if source.is_file():
        shutil.copyfile(source, target)
    return source.is_file()


def _pip_settings() -> list[str]:
    given = {name: os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "") for name in _PIP_SETTINGS}
    return [f"{name} = {value}" for name, value in given.items() if value]


def _storage() -> Path:
    """Where buildah keeps its layers: ours, never the machine's own."""
    return cache_directory() / "image-layers"


def _drop_many_layers() -> None:
    """Begin anew when many changes have left their layers: nobody else can tell which are of use."""
    layers = _storage() / "root" / "overlay"
    if layers.exists() and len(list(layers.iterdir())) > _MOST_LAYERS:
        subprocess.run([*_buildah_command(), "rmi", "--all", "--force"], capture_output=True, check=False)


def _buildah(arguments: Sequence[str], say: Say, doing: str) -> str:
    return run([*_buildah_command(), *arguments], say, doing)


def _succeeds(arguments: Sequence[str]) -> bool:
    return subprocess.run([*_buildah_command(), *arguments], capture_output=True, check=False).returncode == 0


def _buildah_command() -> Sequence[str]:
    storage = _storage()
    return ["buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}", "--storage-driver=overlay"]


def _remove_old(target: str) -> None:
    """Remove archives but for the newest."""
    folders = [path for path in cache_directory().glob(f"image-{target}-*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def main(targets: Sequence[str]) -> int:
    """Print the name and the archive of each target; 1 when they are not to be had, 2 for a target unknown."""
    if unknown := set(targets) - set(TARGETS):
        _say_on_stderr(f"{', '.join(sorted(unknown))}: unknown; there are {', '.join(TARGETS)}")
        return 2
    try:
        for target in targets or ("service", "nextflow"):
            made = image(target, _say_on_stderr)
            print(made.name, made.archive, flush=True)
    except ToolMissing as error:
        _say_on_stderr(str(error))
        return 1
    return 0


def _say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
