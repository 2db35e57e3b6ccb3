"""The command of a run: what users write becomes files and values, never options."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.places import run_places
from shared.runs import Run
from web.schemas import RunRequest
from worker import command
from worker.command import TRACE_FIELDS, Command

DATA = Path("/data")
OPTIONS_WITH_VALUE = {"-log", "-c", "-name", "-params-file", "-ansi-log", "-work-dir", "-r", "-profile", "-resume"}
words = st.text(min_size=1, max_size=30)


def built(run: Run, pipelines_dir: Path = Path("/nowhere/pipelines")) -> Command:
    pipeline = command.pipeline_argument(run.pipeline, pipelines_dir)
    return command.build(run, "/bin/nextflow", run_places(DATA, run.run_id, run.session_id), pipeline)


def options(made: Command) -> dict[str, list[str]]:
    """The options of a command with their values; what is left over stands under an empty name."""
    found: dict[str, list[str]] = {}
    rest = iter(made.arguments)
    for word in rest:
        name, value = (word, next(rest)) if word in OPTIONS_WITH_VALUE else ("", word)
        found.setdefault(name, []).append(value)
    return found


def test_a_plain_run(run: Run) -> None:
    """Nextflow is run with the run's name, its parameters as a file, and a console that can be read."""
    made = built(replace(run, parameters={"n": 3, "reads": "*.fq"}))
    own = DATA / "runs" / run.run_id
    assert options(made) == {
        "": ["/bin/nextflow", "run", "hello"],
        "-log": [str(own / "nextflow.log")],
        "-c": [str(own / "service.config")],
        "-name": [run.run_id],
        "-params-file": [str(own / "parameters.json")],
        "-ansi-log": ["false"],
        "-work-dir": [str(DATA / "sessions" / run.session_id / "work")],
    }
    assert json.loads(made.files[own / "parameters.json"]) == {"n": 3, "reads": "*.fq"}
    assert made.directory == DATA / "sessions" / run.session_id


@given(pipeline=words, revision=st.none() | words, profile=st.none() | words, key=words, value=words)
def test_what_users_write_is_never_an_option(
    run: Run, pipeline: str, revision: str | None, profile: str | None, key: str, value: str
) -> None:
    """Any request that the API takes gives a command whose options are those of the service."""
    try:
        wanted = RunRequest.model_validate(
            {"pipeline": pipeline, "revision": revision, "profile": profile, "parameters": {key: value}}
        )
    except ValidationError:
        return
    asked = replace(
        run,
        pipeline=wanted.pipeline or "",
        revision=wanted.revision,
        profile=wanted.profile,
        parameters=wanted.parameters or {},
    )
    made = options(built(asked))
    assert made.pop("") == ["/bin/nextflow", "run", pipeline]
    assert made.get("-r", [None]) == [revision]
    assert made.get("-profile", [None]) == [profile]
    assert set(made) <= OPTIONS_WITH_VALUE


@pytest.mark.parametrize("field", ["pipeline", "revision", "profile", "resume"])
@pytest.mark.parametrize("text", ["-with-docker", "--x", "-", "-c /etc/passwd"])
def test_names_that_look_like_options_are_not_taken(field: str, text: str) -> None:
    """A leading dash, which would make an option of a name, does not come past the API."""
    with pytest.raises(ValidationError, match="would make it an option"):
        RunRequest.model_validate({"pipeline": "hello", field: text})


def test_parameters_are_on_no_command_line(run: Run) -> None:
    """Other users of the machine can read command lines and environments, so no parameter stands there."""
    made = built(replace(run, parameters={"password": "hunter2", "--help": "hunter2"}, config="x = 'hunter2'"))
    assert "hunter2" not in " ".join(made.arguments)
    assert "hunter2" not in str(made.environment)


def test_the_service_s_config_wins(run: Run) -> None:
    """The user's config is read before the service's, whose trace tells the progress: the later one wins."""
    made = built(replace(run, config="trace.enabled = false"))
    own = DATA / "runs" / run.run_id
    assert options(made)["-c"] == [str(own / "user.config"), str(own / "service.config")]
    assert made.files[own / "user.config"] == b"trace.enabled = false"


def test_the_trace_holds_what_the_console_reader_takes(run: Run) -> None:
    """The trace goes to standard output, raw, with exactly the fields that are read, none of which can be long."""
    made = built(run)
    text = made.files[DATA / "runs" / run.run_id / "service.config"].decode()
    for needed in ("raw = true", "overwrite = true", "file = '/dev/stdout'", f"fields = '{','.join(TRACE_FIELDS)}'"):
        assert needed in text
    assert not {"script", "env"} & set(TRACE_FIELDS)


def test_quotes_in_the_data_directory_do_not_end_the_text_of_the_config(run: Run) -> None:
    """A path in the config is quoted as Groovy wants it."""
    places = run_places(Path("/it's\\here"), run.run_id, run.session_id)
    made = command.build(run, "nextflow", places, "hello")
    text = made.files[places.directory / "service.config"].decode()
    assert f"'/it\\'s\\\\here/runs/{run.run_id}/reports/report.html'" in text


def test_a_new_run_names_its_session_and_a_resumed_one_resumes_it(run: Run) -> None:
    """A session id is given by NXF_UUID to a new run and by -resume to one that goes on, never by both."""
    new, resumed = built(run), built(replace(run, resumes=True))
    assert new.environment["NXF_UUID"] == run.session_id
    assert "-resume" not in new.arguments
    assert options(resumed)["-resume"] == [run.session_id]
    assert "NXF_UUID" not in resumed.environment
    assert resumed.directory == new.directory


def test_children_can_be_told_by_the_run(run: Run) -> None:
    """Every process of a run bears its id in the environment, by which all can be found at its end."""
    assert built(run).environment["NFCTL_RUN_ID"] == run.run_id


def test_a_work_directory_may_be_given(run: Run) -> None:
    """The work directory is the session's, unless the user names one."""
    assert options(built(replace(run, workdir="s3://bucket/work")))["-work-dir"] == ["s3://bucket/work"]


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        ("hello", "{dir}/examples/hello"),
        ("examples/hello", "{dir}/examples/hello"),
        ("nextflow-io/hello", "nextflow-io/hello"),
        ("missing", "missing"),
        ("/abs/main.nf", "/abs/main.nf"),
        ("https://git.example/lab/flow.git", "https://git.example/lab/flow.git"),
        ("git@git.example:lab/flow.git", "git@git.example:lab/flow.git"),
        ("a" * 300, "a" * 300),
    ],
)
def test_pipelines_are_found(tmp_path: Path, pipeline: str, found: str) -> None:
    """What lies in the pipelines directory is named by its path; all else, however long, is left to Nextflow."""
    (tmp_path / "examples" / "hello").mkdir(parents=True)
    assert command.pipeline_argument(pipeline, tmp_path / "examples") == found.format(dir=tmp_path)
