"""What people read in the terminal: the service's own words, and those of `nfctl` when something is amiss."""

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from service_process import Service

from nfctl.client import Client

pytestmark = [pytest.mark.system, pytest.mark.timeout(240), pytest.mark.usefixtures("nextflow", "redis_binary")]

_PATIENCE = 90


class Terminal:
    """A terminal with `nfctl up` in it."""

    def __init__(self, service: Service, *arguments: str) -> None:
        service.data_dir.mkdir(parents=True)
        self._screen, inside = pty.openpty()
        self.process = service.up(inside, inside, *arguments)
        os.close(inside)
        self.said = ""

    def read(self, wanted: str | None = None) -> str:
        """All that it says up to these words, or to its end."""
        deadline = time.monotonic() + _PATIENCE
        while wanted is None or wanted not in self.said:
            assert select.select([self._screen], [], [], max(0, deadline - time.monotonic()))[0], self.said
            try:
                self.said += os.read(self._screen, 65_536).decode(errors="replace")
            except OSError:  # nobody writes there any more
                assert wanted is None, self.said
                break
        return self.said

    def close(self) -> None:
        """End what is left in it."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                self.read()  # it may wait for somebody who reads
                self.process.wait(_PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._screen)


def test_one_ctrl_c_ends_the_example_and_the_service(tmp_path: Path) -> None:
    """It says what it does, and a Ctrl-C that was asked for is no failure."""
    with closing(Terminal(Service(tmp_path / "data"), "--demo")) as terminal:
        terminal.read("Running the example")
        terminal.process.send_signal(signal.SIGINT)
        said = terminal.read()
        assert terminal.process.wait(60) == 0
        assert "Cancelling the example" in said
        assert "Stopped." in said
        assert "goes on" not in said


def test_a_redis_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Whoever has set REDIS_URL is told that it does not answer, and where, without its password."""
    port = free_port()
    service = Service(tmp_path / "data", REDIS_URL=f"redis://:hunter2@127.0.0.1:{port}/0")
    with closing(Terminal(service)) as terminal:
        said = terminal.read(f"Redis does not answer at 127.0.0.1:{port}: start it, or set REDIS_URL.")
        assert "hunter2" not in said
        terminal.process.send_signal(signal.SIGTERM)
        terminal.read()


def test_a_run_that_goes_on_is_told(own_service: Any, counting: str) -> None:
    """At the stop it is said that it goes on, and at the next start that it was taken up again."""
    run_id = own_service.submit(counting, parameters={"lines": 5000})
    own_service.wait(lambda: own_service.run(run_id)["status"] == "running")
    own_service.stop()
    said = own_service.output.read_text()
    assert f"Run {run_id} goes on without the service" in said
    assert f"DATA_DIR={own_service.data_dir} PORT={own_service.port} FLOWER_PORT=" in said
    own_service.start()
    own_service.wait(lambda: f"Run {run_id} goes on, taken up again." in own_service.output.read_text())
    said = own_service.nfctl("cancel")
    assert said.stdout.startswith(f"{run_id}: ")


def test_a_log_that_is_cut_says_so_and_where_it_is_whole(tmp_path: Path, counting: str) -> None:
    """Beside the lines, so that whoever keeps them knows; not where as many were asked for as are there."""
    service = Service(tmp_path / "data", LOG_RETENTION_LINES="200")
    service.start()
    try:
        run_id = service.submit(counting, parameters={"lines": 1000, "pause": 0})
        service.ended(run_id)
        cut = service.nfctl("logs")
        assert 100 < len(cut.stdout.splitlines()) <= 200
        assert f"runs/{run_id}/log in its data directory" in cut.stderr
        assert service.nfctl("logs", "-n", "20").stderr == ""
        assert service.nfctl("logs", "-n", "300").stderr == cut.stderr
        files = sorted((service.data_dir / "runs" / run_id).iterdir())
        assert "log" in [file.name for file in files]
        assert not any(file.is_fifo() for file in files), "whoever reads all files there would wait for ever"
        second = Service(service.data_dir)
        second.output = tmp_path / "second.log"
        with second.output.open("wb") as output:
            assert second.up(subprocess.DEVNULL, output).wait(60) == 1
        assert f"Another service works in {service.data_dir} (pid {service.pid})." in second.output.read_text()
    finally:
        service.kill()


def test_what_can_be_run_and_what_a_run_left(service: Any) -> None:
    """The examples by name, a note on a name that is none of them, and the files of a run with their addresses."""
    listed = service.nfctl("catalog").stdout
    assert all(name in listed for name in ("hello", "simple-pipeline", "rnaseq-test", "parallel-demo"))
    done = service.nfctl("run", "simple-pipeline", "-p", "fast=true", "--follow")
    run_id = service.client.call("GET", "/history", params={"limit": 1})[0]["run_id"]
    assert f"Reports and outputs: {service.url}/#run={run_id}" in done.stdout
    assert f"{service.url}/api/v1/pipeline/runs/{run_id}/artifacts/report/" in service.nfctl("artifacts", run_id).stdout
    wrong = service.nfctl("run", "helo")
    assert "No example is called helo" in wrong.stderr
    assert "Did you mean hello?" in wrong.stderr
    helo = service.client.call("GET", "/history", params={"limit": 1})[0]["run_id"]
    service.nfctl("cancel", helo)
    service.ended(helo)
    no_address = service.nfctl("--url", "here", "status")
    assert (no_address.returncode, "http://127.0.0.1:8000" in no_address.stderr) == (1, True)


def test_who_follows_is_told_when_nobody_answers(ten_tries: list[float]) -> None:
    """Once, and only after some tries, so that a restart of the service passes in silence."""
    told: list[tuple[int, str]] = []
    client = Client(f"http://127.0.0.1:{free_port()}", None)
    with pytest.raises(TimeoutError):
        next(client.follow("run-20260131-000000-abcdef12", away=lambda why: told.append((len(ten_tries), why))))
    assert told == [(2, "The service does not answer.")]
