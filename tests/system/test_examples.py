"""Each pipeline of the catalog, run by a real Nextflow: it does and prints what the catalog promises."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOWS: list[dict[str, Any]] = yaml.safe_load((EXAMPLES / "test_workflows.yaml").read_text())["workflows"]
BY_NAME = {workflow["name"]: workflow for workflow in WORKFLOWS}
RESULTS = {
    "simple-pipeline": {"report.tsv"},
    "hello": {"hello.txt"},
    "rnaseq-test": {"expression.tsv"}
    | {
        f"{folder}/sample_{n}.{kind}.tsv"
        for folder, kind in (("fastqc", "fastqc"), ("aligned", "aligned"), ("counts", "counts"))
        for n in (1, 2, 3)
    },
    "parallel-demo": {"primes.tsv"},
}

pytestmark = [pytest.mark.system, pytest.mark.nextflow, pytest.mark.slow]


@dataclass(frozen=True)
class Ran:
    """What a run of Nextflow left behind."""

    code: int
    output: str
    folder: Path

    def tasks(self) -> Counter[str]:
        """Completed tasks by process, from the trace."""
        with (self.folder / "trace.tsv").open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return Counter(row["process"] for row in rows if row["status"] == "COMPLETED")

    def results(self) -> set[str]:
        """The files that the pipeline published."""
        folder = self.folder / "results"
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(nextflow: Path, folder: Path, pipeline: str, parameters: Mapping[str, Any], *options: str) -> Ran:
    """Runs a pipeline of the catalog in `folder`, its parameters in a file as the service gives them."""
    (folder / "parameters.json").write_text(json.dumps(parameters))
    (folder / "trace.config").write_text("trace.fields = 'process,tag,status,exit'\n")
    offline = {"NXF_ANSI_LOG": "false", "NXF_OFFLINE": "true", "NXF_DISABLE_CHECK_LATEST": "true"}
    done = subprocess.run(
        [
            *(str(nextflow), "-c", "trace.config", "run", str(EXAMPLES / pipeline)),
            *("-params-file", "parameters.json", "-with-trace", "trace.tsv", *options),
        ],
        cwd=folder,
        env=os.environ | offline,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    return Ran(done.returncode, done.stdout, folder)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_pipeline_keeps_the_promises_of_the_catalog(name: str, nextflow: Path, tmp_path: Path) -> None:
    """It succeeds, runs the stated processes and number of tasks, prints the phrases and publishes its results."""
    workflow = BY_NAME[name]
    ran = run(nextflow, tmp_path, workflow["pipeline"], workflow["parameters"] | {"fast": True})
    assert ran.code == 0, ran.output

    tasks = ran.tasks()
    expected = workflow["expected_tasks"]
    least, most = expected if isinstance(expected, list) else (expected, expected)
    assert set(tasks) == set(workflow["expected_processes"])
    assert least <= tasks.total() <= most
    assert [phrase for phrase in workflow["expected_output"] if phrase not in ran.output] == []
    assert ran.results() == RESULTS[name]


def test_the_profile_fast_and_typed_parameters_are_heard(nextflow: Path, tmp_path: Path) -> None:
    """`-profile fast` shortens like the parameter does, and a number in the parameters' file is a number."""
    ran = run(nextflow, tmp_path, "simple-pipeline", {"samples": 2, "outdir": "results/here"}, "-profile", "fast")
    assert ran.code == 0, ran.output
    assert ran.tasks() == {"MEASURE": 2, "SUMMARISE": 2, "REPORT": 1}
    assert ran.results() == {"here/report.tsv"}


def test_a_parameter_out_of_range_fails_with_a_sentence(nextflow: Path, tmp_path: Path) -> None:
    """A pipeline that cannot do what it is asked says why, and runs nothing."""
    ran = run(nextflow, tmp_path, "rnaseq-test", {"samples": 0})
    assert ran.code == 1
    assert "samples: 0 is not between 1 and 20" in ran.output
    assert "Submitted process" not in ran.output


@pytest.mark.parametrize("name", BY_NAME)
def test_the_profile_k8s_and_the_offered_parameters(name: str, nextflow: Path, tmp_path: Path) -> None:
    """A file given with -c has the last word on image and claim; offered parameters have the pipeline's defaults."""
    workflow = BY_NAME[name]
    (tmp_path / "service.config").write_text(
        "process.container = 'ours:1'\nk8s.storageClaimName = 'our-claim'\nk8s.storageMountPath = '/ours'\n"
    )
    show = [str(nextflow), "-c", "service.config", "config", "-flat", "-profile", "k8s"]
    show.append(str(EXAMPLES / workflow["pipeline"]))
    shown = subprocess.run(show, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    settings = dict(line.split(" = ", 1) for line in shown.stdout.splitlines() if " = " in line)
    assert settings["process.executor"] == "'k8s'"
    assert settings["process.container"] == "'ours:1'"
    assert settings["k8s.storageClaimName"] == "'our-claim'"
    assert settings["k8s.storageMountPath"] == "'/ours'"
    for key, value in workflow["parameters"].items():
        assert settings[f"params.{key}"] == json.dumps(value)


CLIENTS = {"follow.py": [sys.executable], "follow.sh": ["bash"]}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("pipeline", "parameters", "code", "result"),
    [("hello", {"fast": True}, 0, "succeeded in"), ("rnaseq-test", {"samples": 0}, 1, "failed in")],
)
def test_a_client_shows_a_run_and_ends_with_its_result(
    client: str, pipeline: str, parameters: Mapping[str, Any], code: int, result: str, service: Any, jq: Path
) -> None:
    """The log on stdout as the service keeps it, the progress on stderr, the result as the exit code."""
    done = subprocess.run(
        [*CLIENTS[client], str(EXAMPLES / "clients" / client), pipeline, json.dumps(parameters)],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert result in done.stderr.splitlines()[-1]
    found = re.search(r"run (\S+?):? ", done.stderr)
    assert found is not None
    assert done.stdout.splitlines() == service.lines(found[1])
    assert ("HELLO: 1 succeeded" in done.stderr) == (code == 0)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_says_why_it_cannot_start_a_run(client: str, service: Any, jq: Path) -> None:
    """A refusal and a service that is away are told in words, with an exit code of their own."""
    command = [*CLIENTS[client], str(EXAMPLES / "clients" / client), "hello"]
    for url, parameters in ((service.url, "[]"), ("http://127.0.0.1:9", "{}")):
        environment = service.environment | {"NFCTL_URL": url}
        done = subprocess.run(
            [*command, parameters], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.strip()


class Scripted(BaseHTTPRequestHandler):
    """A service that answers each look at a run's events with the next of its `pages`, and with 404 after the last."""

    def do_POST(self) -> None:
        """A run is taken in."""
        self._answer({"run_id": "run-20260131-000000-abcdef12", "status": "starting"})

    def do_GET(self) -> None:
        """The events, by what they were asked for."""
        pages: list[dict[str, Any]] = self.server.pages  # type: ignore[attr-defined]  # the test gives it these
        if pages and "/events" in self.path:
            page = pages.pop(0)
            assert page["asked"] == self.path.partition("?")[2]
            self._answer(page)
        elif pages:
            self._answer({})
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, what: object) -> None:
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def page(asked: str, last_id: int, status: str, *lines: str, ended: bool = False) -> dict[str, Any]:
    """What a service answers to that question: an event for each line, and perhaps the end."""
    events: list[dict[str, Any]] = [
        {"id": number, "type": "log", "data": {"lines": [{"message": line}]}}
        for number, line in enumerate(lines, start=1)
    ]
    if ended:
        events.append({"id": last_id, "type": "complete", "data": {"status": status, "duration_seconds": 1}})
    return {"asked": asked, "last_id": last_id, "status": status, "events": events}


SEEN = page("since=0", 3, "running", "one", "two", "three")


@pytest.mark.parametrize(
    ("later", "code", "lines", "said"),
    [
        (
            [page("since=3", 1, "running"), page("since=0", 3, "succeeded", "one", "2", ended=True)],
            0,
            ["one", "2"],
            "has lost events",
        ),
        (
            [page("since=3", 3, "failed"), page("since=0", 3, "failed", "one", "2", ended=True)],
            1,
            ["one", "2"],
            "has lost events",
        ),
        ([], 3, [], "has it no more"),
    ],
    ids=["fewer", "ended otherwise", "gone"],
)
def test_who_polls_a_service_that_has_lost_events_is_not_stuck(
    later: list[dict[str, Any]], code: int, lines: list[str], said: str, jq: Path, tmp_path: Path
) -> None:
    """The ids that it saw mean other events now, so it begins anew; a run that is gone is not waited for."""
    for tool in ("bash", "curl", "jq", "sleep"):  # and no websocat
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/bin/false")
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.pages = [SEEN, *later]  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"PATH": str(tmp_path), "NFCTL_URL": f"http://127.0.0.1:{server.server_port}"}
        command = ["bash", str(EXAMPLES / "clients" / "follow.sh"), "hello"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["one", "two", "three", *lines]
    assert said in done.stderr
