"""The Job of a run and its Secret: what the cluster is asked for, and what never stands in it."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared import settings as settings_module
from shared.errors import CannotStart
from shared.runs import Run
from shared.settings import Settings
from worker.kube import manifest
from worker.kube.manifest import Order

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The default settings, with pipelines of every kind."""
    return made_settings(tmp_path_factory.mktemp("lab"))


def made_settings(directory: Path, **values: str) -> Settings:
    """Settings whose pipelines lie in a directory of their own."""
    pipelines = directory / "pipelines"
    pipelines.mkdir(exist_ok=True)
    return settings_module.load({"PIPELINES_DIR": str(pipelines), "DATA_DIR": str(directory), **values})


def container(order: Order) -> Json:
    found: Json = manifest.job(order)["spec"]["template"]["spec"]["containers"][0]
    return found


def unpacked(order: Order) -> Mapping[str, tuple[bytes, int]]:
    """The files as the kubelet mounts them: content and mode, by path."""
    data = manifest.secret(order, "uid-1")["data"]
    volumes = manifest.job(order)["spec"]["template"]["spec"]["volumes"]
    items = next(volume["secret"]["items"] for volume in volumes if "secret" in volume)
    assert {item["key"] for item in items} == set(data)
    return {item["path"]: (base64.b64decode(data[item["key"]]), item["mode"]) for item in items}


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """What Kubernetes makes of an argument: its third_party/forked/golang/expansion, in Python."""
    made, place = "", 0
    while place < len(text):
        following = text[place + 1 : place + 2]
        if text[place] != "$" or not following:
            made, place = made + text[place], place + 1
        elif following == "(" and ")" in text[place:]:
            end = text.index(")", place)
            name = text[place + 2 : end]
            made, place = made + variables.get(name, f"$({name})"), end + 1
        else:
            made, place = made + ("$" if following == "$" else "$" + following), place + 2
    return made


def head_job(run: Run, settings: Settings) -> Json:
    return manifest.job(manifest.order(run, settings))


def log_job(run: Run, settings: Settings) -> Json:
    return manifest.log_job(run, settings, 10**9)


@pytest.mark.parametrize("job", [head_job, log_job])
def test_it_conforms_to_the_restricted_profile(
    run: Run, settings: Settings, job: Callable[[Run, Settings], Json]
) -> None:
    """A namespace that enforces the restricted Pod Security Standard takes the pod."""
    pod = job(run, settings)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in [*pod["containers"], *pod.get("initContainers", [])]:
        own = one["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert "privileged" not in own
        assert "ports" not in one
    assert {next(key for key in volume if key != "name") for volume in pod["volumes"]} <= {
        "persistentVolumeClaim",
        "secret",
        "emptyDir",
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_the_documented_job_is_the_one_that_is_made() -> None:
    """Whoever reads the documentation sees what the cluster is asked for."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    documented = yaml.safe_load(page.partition("<!-- job -->\n```yaml\n")[2].partition("```")[0])
    run = Run(
        run_id="run-20260131-120000-0a1b2c3d",
        pipeline="hello",
        session_id="0f4d2c6e-1111-4222-8333-444455556666",
        queued_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    )
    settings = settings_module.load({"PIPELINES_DIR": str(ROOT / "examples")})
    assert documented == manifest.job(manifest.order(run, settings))


def test_it_begins_once_and_suspended(run: Run, settings: Settings) -> None:
    """Making it starts nothing, and nothing of it is tried twice."""
    job = manifest.job(manifest.order(run, settings))
    assert job["spec"]["suspend"] is True
    assert (job["spec"]["backoffLimit"], job["spec"]["completions"], job["spec"]["parallelism"]) == (0, 1, 1)
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["activeDeadlineSeconds"] == settings.job_active_deadline_seconds
    assert job["spec"]["ttlSecondsAfterFinished"] == settings.job_ttl_seconds_after_finished


def test_names_and_labels_are_legal(run: Run, settings: Settings) -> None:
    """The name leaves room for the pod's suffix, and every label is one."""
    order = manifest.order(run, settings)
    job, secret = manifest.job(order), manifest.secret(order, "uid-1")
    for item in (job, secret):
        assert _NAME.fullmatch(item["metadata"]["name"])
        assert len(item["metadata"]["name"]) <= 63 - len("-abcde")
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert all(_LABEL.fullmatch(value) for value in labels.values())
        assert labels[manifest.RUN_LABEL] == run.run_id
    # The run's own Job is not one of those that Nextflow leaves behind.
    assert manifest.RUN_NAME_LABEL not in job["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"][manifest.RUN_NAME_LABEL] == run.run_id


def test_what_prints_the_log_is_no_run(run: Run, settings: Settings) -> None:
    """Its names and labels are legal, it is taken for no Nextflow, and removed as what one left behind."""
    job = manifest.log_job(run, settings, 10**9)
    assert len(job["metadata"]["name"]) <= 63 - len("-abcde")
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert manifest.RUN_LABEL not in labels
        assert labels[manifest.RUN_NAME_LABEL] == run.run_id
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert [mount["readOnly"] for mount in pod["containers"][0]["volumeMounts"]] == [True]


@pytest.mark.parametrize(("start", "printed"), [(0, "2\none\ntwo\nthree"), (2, "2\nthree"), (3, "2\n"), (None, "0\n")])
def test_the_log_is_printed_after_so_many_lines(run: Run, tmp_path: Path, start: int | None, printed: str) -> None:
    """Its length, and then the rest as it stands on the claim; a run that has none is no failure."""
    settings = made_settings(tmp_path, WORK_MOUNT_PATH=str(tmp_path))
    directory = tmp_path / "runs" / run.run_id
    directory.mkdir(parents=True)
    if start is not None:
        (directory / "log").write_text("one\ntwo\nthree")
    made = manifest.log_job(run, settings, start or 0)["spec"]["template"]["spec"]["containers"][0]["command"]
    done = subprocess.run(made, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (printed, "")


def test_the_secret_belongs_to_the_job(run: Run, settings: Settings) -> None:
    """It goes when the Job goes, and nobody changes it meanwhile."""
    secret = manifest.secret(manifest.order(run, settings), "uid-1")
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == ["uid-1"]
    assert secret["immutable"] is True


@given(st.text(st.sampled_from("$()aHOME"), max_size=30))
def test_arguments_arrive_as_they_are(run: Run, settings: Settings, text: str) -> None:
    """Whatever dollars and brackets a user writes, Kubernetes puts nothing in their place."""
    order = manifest.order(replace(run, revision=text or None, profile="x$$(HOME)$(NXF_HOME)$"), settings)
    variables = {item["name"]: item["value"] for item in container(order)["env"]}
    assert tuple(expanded(argument, variables) for argument in container(order)["args"]) == order.command.arguments


def test_environment_values_arrive_as_they_are(run: Run, tmp_path: Path) -> None:
    """They are looked through for variables too."""
    order = manifest.order(run, made_settings(tmp_path, WORK_MOUNT_PATH="/a$(HOME)$$b"))
    values = {item["name"]: item["value"] for item in container(order)["env"]}
    assert expanded(values["NXF_HOME"], {"HOME": "wrong"}) == "/a$(HOME)$$b/.nextflow"


def test_the_script_is_left_as_it_is(run: Run, settings: Settings) -> None:
    """The shell's own variables are no variables of Kubernetes."""
    made = container(manifest.order(run, settings))
    variables = {item["name"]: "wrong" for item in made["env"]}
    assert [expanded(word, variables) for word in made["command"]] == made["command"]


class Head:
    """The container's own script, at work on this machine with something else in Nextflow's place."""

    def __init__(self, directory: Path, script: Sequence[str], program: str) -> None:
        self.directory = directory
        files = directory / "files"
        files.mkdir()
        (files / "defaults.config").write_text("process.container = 'x'\n")
        named = ("NXF_HOME", "HOME", "RUN_DIRECTORY", "LAUNCH_DIRECTORY")
        places = {name: str(directory / name.lower()) for name in named}
        self.last_word = directory / "last_word"
        self.environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(directory),
            "RUN_FILES": str(files),
            "LAST_WORD": str(self.last_word),
            **places,
        }
        self.command = [*script, "sh", "-c", program]
        self.log = directory / "run_directory" / "log"

    def start(self) -> subprocess.Popen[str]:
        """Begin."""
        return subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture(params=["/bin/sh", "/bin/bash"])  # what images have for /bin/sh
def head(run: Run, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Head]:
    """Makes one for a shell's program."""
    made = container(manifest.order(run, settings))
    assert made["command"][0] == "/bin/sh"
    return lambda program: Head(tmp_path, [request.param, *made["command"][1:]], program)


@pytest.mark.parametrize("begun", [True, False, None])
@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_what_never_came_to_a_session_begins_it(
    run: Run, settings: Settings, tmp_path: Path, shell: str, elsewhere: bool, begun: bool | None
) -> None:
    """Only the head sees whether Nextflow has begun the session of the run that is resumed."""
    made = container(manifest.order(replace(run, resumes=True, session_may_be_new=True), settings))
    assert "-resume" not in made["args"]
    environment = {item["name"]: item["value"] for item in made["env"]}
    # What stands in Nextflow's place is a shell, to which the first argument more is its own name.
    head = Head(tmp_path, [shell, *made["command"][1:]], 'echo "${NXF_UUID:-none} $0 $*"')
    head.environment |= {name: environment[name] for name in ("NXF_UUID", "SESSION_MAY_BE_NEW")}
    if elsewhere:
        head.environment["NXF_CACHE_DIR"] = str(tmp_path / "cache")
    history = Path(head.environment["LAUNCH_DIRECTORY"], head.environment.get("NXF_CACHE_DIR", ".nextflow"), "history")
    history.parent.mkdir(parents=True)
    if begun is not None:
        history.write_text(
            f"2026-01-31 12:00:00\t-\tother\n2026-01-31 12:00:01\t-\t{run.session_id if begun else 'another'}\n"
        )
    said, _ = head.start().communicate(timeout=30)
    assert said == (f"none -resume {run.session_id}\n" if begun else f"{run.session_id} sh \n")


@pytest.mark.parametrize("code", [0, 1, 137])
def test_the_console_is_kept_on_the_claim(head: Callable[[str], Head], code: int) -> None:
    """All that is said comes out in order, stands in the run's directory for good, and the exit code is Nextflow's."""
    script = head(f"for n in $(seq 5000); do echo line $n; done; echo error >&2; printf 'no newline'; exit {code}")
    process = script.start()
    said, _ = process.communicate(timeout=30)
    assert said.splitlines() == [*(f"line {number}" for number in range(1, 5001)), "error", "no newline"]
    assert script.log.read_text() == said
    assert script.last_word.read_text() == "5001 lines printed"
    assert process.returncode == code


def test_the_signal_that_ends_the_pod_reaches_nextflow(head: Callable[[str], Head]) -> None:
    """It may take its time, as it does to delete its tasks' pods; a second signal changes nothing."""
    stop = "trap : TERM; echo stopping; sleep 0.5; echo stopped; exit 7"
    script = head(f"trap '{stop}' TERM; echo begun; while :; do sleep 0.05; done")
    process = script.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert said == "stopped\n"
    assert process.returncode == 7


def test_what_a_pipeline_leaves_behind_holds_up_no_end(head: Callable[[str], Head]) -> None:
    """A process that keeps the console open does not keep the run from ending, nor a line from being read."""
    script = head("sleep 60 & echo $!; echo last; exit 3")
    process = script.start()
    said, _ = process.communicate(timeout=30)
    left, last = said.split()
    os.kill(int(left), signal.SIGKILL)
    assert (last, process.returncode) == ("last", 3)


def test_a_late_signal_changes_nothing(head: Callable[[str], Head]) -> None:
    """Nextflow has ended well, something still says its last words, and the pod is deleted twice: all that is kept."""
    script = head("(sleep 2; echo last) & echo first; exit 0")
    process = script.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert script.log.read_text() == "first\nlast\n"  # already: the container ends with the shell
    assert process.stdout.read() == "last\n"


def test_a_second_head_counts_what_it_printed_itself(head: Callable[[str], Head]) -> None:
    """A Job that somebody suspends and lets go again has two, and one log on the claim."""
    script = head("printf 'one\\r\\ntwo\\nthree\\n'")
    script.log.parent.mkdir()
    script.log.write_text("of the first\n")
    assert script.start().communicate(timeout=30)[0].split() == ["one", "two", "three"]
    assert script.last_word.read_text() == "3 lines printed"


def test_a_full_claim_loses_no_line_of_the_container_s_log(head: Callable[[str], Head]) -> None:
    """It is told that the claim does not take it; the rest goes on."""
    script = head("echo one; sleep 0.1; echo two")
    script.log.parent.mkdir()
    script.log.symlink_to("/dev/full")
    process = script.start()
    said, _ = process.communicate(timeout=30)
    assert [line for line in said.splitlines() if not line.startswith("tee: ")] == ["one", "two"]
    assert "No space left on device" in said
    assert process.returncode == 0
    assert script.last_word.read_text() == "0 lines printed"  # and so nobody counts lines as missing


def test_what_is_secret_stands_in_the_secret_alone(run: Run, settings: Settings) -> None:
    """Whoever may see Jobs sees neither parameters nor the user's configuration."""
    told = replace(run, parameters={"token": "hunter2"}, config="aws.secretKey = 'hunter3'")
    order = manifest.order(told, settings)
    assert "hunter" not in json.dumps(manifest.job(order))
    files = unpacked(order)
    assert json.loads(files["parameters.json"][0]) == {"token": "hunter2"}
    assert files["user.config"][0] == b"aws.secretKey = 'hunter3'"


def test_a_pipeline_that_is_not_here(run: Run, settings: Settings) -> None:
    """A repository's name is Nextflow's to find; nothing is packed."""
    order = manifest.order(replace(run, pipeline="nextflow-io/hello", config=None), settings)
    assert set(unpacked(order)) == {"parameters.json", "service.config", "defaults.config"}
    assert "nextflow-io/hello" in order.command.arguments


def test_a_directory_is_packed(run: Run, tmp_path: Path) -> None:
    """With its folders and the bits that make scripts executable, and without what is hidden."""
    settings = made_settings(tmp_path)
    pipeline = settings.pipelines_dir / "align"
    for name in ("main.nf", "bin/run.sh", "modules/a/b.nf", ".git/config", ".nextflow.log", "modules/.cache/x"):
        path = pipeline / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (pipeline / "bin" / "run.sh").chmod(0o755)
    (pipeline / "binary").write_bytes(bytes(range(256)))
    (pipeline / "empty").touch()
    (pipeline / "dangling").symlink_to("nowhere")
    order = manifest.order(replace(run, pipeline="align"), settings)
    files = {path: file for path, file in unpacked(order).items() if path.startswith("pipeline/")}
    assert {path: mode for path, (_, mode) in files.items()} == {
        "pipeline/main.nf": 0o444,
        "pipeline/bin/run.sh": 0o555,
        "pipeline/modules/a/b.nf": 0o444,
        "pipeline/binary": 0o444,
        "pipeline/empty": 0o444,
    }
    assert files["pipeline/binary"][0] == bytes(range(256))
    assert files["pipeline/main.nf"][0] == b"# main.nf\n"
    assert f"/workspace/sessions/{run.session_id}/pipeline" in order.command.arguments


def test_a_single_script_is_packed(run: Run, tmp_path: Path) -> None:
    """Alone, and Nextflow is given its path."""
    settings = made_settings(tmp_path)
    (settings.pipelines_dir / "one.nf").write_text("println 1\n")
    (settings.pipelines_dir / "two.nf").write_text("println 2\n")
    order = manifest.order(replace(run, pipeline="one.nf"), settings)
    assert [path for path in unpacked(order) if path.startswith("pipeline/")] == ["pipeline/one.nf"]
    assert f"/workspace/sessions/{run.session_id}/pipeline/one.nf" in order.command.arguments


def test_what_lies_outside_is_not_packed(run: Run, tmp_path: Path) -> None:
    """Neither a way up nor a link leads out of PIPELINES_DIR."""
    settings = made_settings(tmp_path)
    (tmp_path / "private.nf").write_text("the worker's own\n")
    (settings.pipelines_dir / "link.nf").symlink_to(tmp_path / "private.nf")
    for name in ("../private.nf", "link.nf", "private.nf"):
        order = manifest.order(replace(run, pipeline=name), settings)
        assert not any(path.startswith("pipeline/") for path in unpacked(order))


@pytest.mark.parametrize("sizes", [[800_000], [1000] * 750, [600_000, 200_000]])
def test_a_pipeline_that_does_not_fit(run: Run, tmp_path: Path, sizes: list[int]) -> None:
    """What does not fit into a Secret cannot start, and it is said what to do."""
    settings = made_settings(tmp_path)
    pipeline = settings.pipelines_dir / "big"
    pipeline.mkdir()
    for number, size in enumerate(sizes):
        (pipeline / f"file-{number}").write_bytes(b"x" * size)
    with pytest.raises(CannotStart, match=r"700000 bytes that fit into a Secret.*claim nextflow-work"):
        manifest.order(replace(run, pipeline="big"), settings)


def test_parameters_that_do_not_fit(run: Run, settings: Settings) -> None:
    """They count too."""
    with pytest.raises(CannotStart, match="fit into a Secret"):
        manifest.order(replace(run, parameters={"samples": "x" * 700_001}), settings)


def test_what_just_fits_is_taken_by_the_server(run: Run, tmp_path: Path) -> None:
    """The Secret stays below the mebibyte that the API server takes, its names included."""
    settings = made_settings(tmp_path)
    pipeline = settings.pipelines_dir / "big"
    pipeline.mkdir()
    for number in range(690):
        (pipeline / f"file-{number}").write_bytes(b"x" * 1000)
    secret = manifest.secret(manifest.order(replace(run, pipeline="big"), settings), "uid-1")
    assert len(json.dumps(secret)) < 1_048_576


@pytest.mark.parametrize(("memory", "heap"), [("1Gi", 614), ("1500Mi", 900), ("4Gi", 2457), ("512Mi", 307)])
def test_the_heap_leaves_room_for_java_itself(run: Run, tmp_path: Path, memory: str, heap: int) -> None:
    """Three fifths of the container's memory, which is both asked for and the limit."""
    made = container(manifest.order(run, made_settings(tmp_path, NEXTFLOW_MEMORY=memory)))
    options = {item["name"]: item["value"] for item in made["env"]}["NXF_OPTS"]
    assert f"-Xmx{heap}m" in options.split()
    assert made["resources"]["requests"]["memory"] == made["resources"]["limits"]["memory"] == memory


def test_the_grace_is_enough_for_nextflow_to_end_its_pods(run: Run, tmp_path: Path) -> None:
    """A shorter one than that is not taken, a longer one is."""
    for seconds, grace in (("5", 120), ("600", 600)):
        settings = made_settings(tmp_path, CANCEL_GRACE_SECONDS=seconds)
        pod = manifest.job(manifest.order(run, settings))["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == grace
