"""Tools: finds or installs the programs that the service starts and that no Python requirement brings.

Each finder takes `say`, which hears of every step that takes long, and raises ToolMissing with what was
tried and what to do. What it installs goes to the user's cache, once; the system is changed only where a
package manager is the last way left and the person is root.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nfctl.cache import Say, install_once
from nfctl.programs import InstallFailed, ToolMissing, Way, apt_install, first_of, on_path, printed_by, run
from nfctl.redis_binary import redis_server

__all__ = ["ToolMissing", "chromium", "java", "nextflow", "redis_server"]

LEAST_JAVA = 17
NEXTFLOW_VERSION = "24.10.0"

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
_LAUNCHER = _HERE / "nextflow.bash"
_OFFICIAL_LAUNCHER = "https://get.nextflow.io"
# The official launcher fetches what it starts: unless told otherwise, the release that we were tried with.
_PINNING_LAUNCHER = f"""#!/usr/bin/env bash
export NXF_VER="${{NXF_VER:-{NEXTFLOW_VERSION}}}"
exec "$(dirname -- "$0")/launcher" "$@"
"""
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def java(say: Say) -> Path:
    """The java that Nextflow will use, 17 or newer: of NXF_JAVA_HOME, JAVA_HOME, or the one on PATH."""
    return first_of(
        (_java_here,),
        say,
        missing=f"No Java, {LEAST_JAVA} or newer",
        advice="Install one and try again: `sudo apt-get install openjdk-17-jre-headless` (Debian, Ubuntu), "
        "`brew install openjdk@17` (macOS); JAVA_HOME, where set, must name it.",
    )


def nextflow(say: Say, chosen: str | None = None) -> Path:
    """An executable Nextflow: `chosen` where given, else the one on PATH, else 24.10.0 in the cache.

    `chosen` is the setting NEXTFLOW_BIN, read from the environment when the caller gives none. A Nextflow
    that we did not install is asked for its version once, and again when its file changes.
    """
    chosen = os.environ.get("NEXTFLOW_BIN", "") if chosen is None else chosen
    if chosen:
        return first_of(
            (_nextflow_at(chosen),),
            say,
            missing="NEXTFLOW_BIN names no Nextflow that works",
            advice="Set it to the path of one, or leave it empty to have one installed.",
        )
    return first_of(
        (_nextflow_on_path, _nextflow_from_maven, _nextflow_from_its_site),
        say,
        missing="No Nextflow",
        advice="Install Maven (`sudo apt-get install maven`, `brew install maven`) and try again, "
        f"or install Nextflow itself (`curl -s {_OFFICIAL_LAUNCHER} | bash`) and put it on PATH.",
    )


def chromium(say: Say) -> Path | None:
    """A Chromium or Chrome for the browser tests: the one on PATH, or Debian's package, or None."""
    for way in (_chromium_on_path, _chromium_from_debian):
        try:
            return way(say)
        except InstallFailed as error:
            say(f"Chromium: {error}")
    return None


def jq(say: Say) -> Path | None:
    """jq, which the example client for the shell needs: the one on PATH, or Debian's package, or None."""
    try:
        if not shutil.which("jq"):
            apt_install(("jq",), say, "jq: installing Debian's jq")
        return on_path("jq")
    except InstallFailed as error:
        say(f"jq: {error}")
        return None


def _java_here(_say: Say) -> Path:
    home = os.environ.get("NXF_JAVA_HOME") or os.environ.get("JAVA_HOME")
    found = Path(home) / "bin" / "java" if home else on_path("java")
    version = re.search(r'version "(?:1\.)?(\d+)', printed_by(found, "-version"))
    if not version:
        raise InstallFailed(f"{found} does not tell its version")
    if int(version[1]) < LEAST_JAVA:
        raise InstallFailed(f"{found} is {version[1]}")
    return found


def _nextflow_at(chosen: str) -> Way:
    def way(say: Say) -> Path:
        found = shutil.which(Path(chosen).expanduser())
        if not found:
            raise InstallFailed(f"{chosen} is no executable file")
        return _checked_nextflow(Path(found), say)

    return way


def _nextflow_on_path(say: Say) -> Path:
    return _checked_nextflow(on_path("nextflow"), say)


def _checked_nextflow(found: Path, say: Say) -> Path:
    found = found.absolute()
    state = found.stat()
    mark = hashlib.sha256(f"{found} {state.st_mtime_ns} {state.st_size}".encode()).hexdigest()[:16]

    def fill(folder: Path) -> None:
        version = run([str(found), "-version"], say, f"Nextflow: trying {found}")
        if "nextflow" not in version.lower():
            raise InstallFailed(f"{found} -version does not answer as Nextflow does")
        (folder / "version").write_text(version)

    # Asking takes a Java start of some seconds, so the answer is kept.
    install_once(f"nextflow-checked-{mark}", fill, say)
    return found


def _maven_folder() -> str:
    content = hashlib.sha256(_POM.read_bytes() + _LAUNCHER.read_bytes()).hexdigest()[:8]
    return f"nextflow-{NEXTFLOW_VERSION}-{content}"


def _nextflow_from_maven(say: Say) -> Path:
    def fill(folder: Path) -> None:
        # Strict checksums: a jar that came damaged is an error here, not a riddle at the first run.
        maven = [str(on_path("mvn")), "--batch-mode", "--no-transfer-progress", "--strict-checksums"]
        java(say)
        copy = [
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={folder / 'lib'}",
        ]
        doing = f"Nextflow: fetching {NEXTFLOW_VERSION} from Maven Central (54 jars, 42 MB)"
        run([*maven, f"--file={_POM}", *copy], say, doing)
        _place(_LAUNCHER.read_text(), folder, say)

    return install_once(_maven_folder(), fill, say) / "nextflow"


def _nextflow_from_its_site(say: Say) -> Path:
    def fill(folder: Path) -> None:
        curl = [
            str(on_path("curl")),
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--connect-timeout",
            "10",
        ]
        java(say)
        official = folder / "launcher"
        fetch = [*curl, "--output", str(official), _OFFICIAL_LAUNCHER]
        run(fetch, say, f"Nextflow: fetching its launcher from {_OFFICIAL_LAUNCHER}")
        official.chmod(0o755)
        _place(_PINNING_LAUNCHER, folder, say)

    return install_once(f"nextflow-{NEXTFLOW_VERSION}-official", fill, say) / "nextflow"


def _place(launcher: str, folder: Path, say: Say) -> None:
    executable = folder / "nextflow"
    executable.write_text(launcher)
    executable.chmod(0o755)
    run([str(executable), "-version"], say, f"Nextflow: trying {NEXTFLOW_VERSION}")


def _chromium_on_path(_say: Say) -> Path:
    for name in _CHROMIUM_NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise InstallFailed(f"no {', '.join(_CHROMIUM_NAMES[:3])} on PATH")


def _chromium_from_debian(say: Say) -> Path:
    # Without a font that has them, the page's ticks and crosses are boxes on a screenshot.
    packages = ("chromium", "fonts-dejavu-core")
    apt_install(packages, say, "Chromium: installing Debian's chromium (about 100 MB)")
    return _chromium_on_path(say)


def main(names: Sequence[str]) -> int:
    """Prints the path of each tool that is named, one a line; 1 when one is missing, 2 for a name unknown."""
    finders: Mapping[str, Callable[[Say], Path | None]] = {
        "redis": redis_server,
        "java": java,
        "nextflow": nextflow,
        "chromium": chromium,
        "jq": jq,
    }
    if unknown := set(names) - set(finders):
        _say_on_stderr(f"{', '.join(sorted(unknown))}: unknown; there are {', '.join(finders)}")
        return 2
    found = [_printed_path(finders[name]) for name in names]
    return 0 if all(found) else 1


def _printed_path(find: Callable[[Say], Path | None]) -> bool:
    try:
        path = find(_say_on_stderr)
    except ToolMissing as error:
        _say_on_stderr(str(error))
        return False
    if path:
        print(path, flush=True)
    return path is not None


def _say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
