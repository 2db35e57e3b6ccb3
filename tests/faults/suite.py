"""Suite: the trials of many faults on a few stages, side by side where they do not disturb each other."""

import queue
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from faults.trial import Fault, MakeStage, Verdict, run_trial

_HERE = Path(__file__).parent


class Suite:
    """`times` trials of each fault. As many work at once as there are stages; those that want to be alone come last."""

    def __init__(
        self, stages: Sequence[MakeStage], directory: Path, times: int, seed: str, say: Callable[[str], None] = print
    ) -> None:
        self._free: queue.SimpleQueue[MakeStage] = queue.SimpleQueue()
        for stage in stages:
            self._free.put(stage)
        self._directory = directory
        self._times = times
        self._seed = seed
        self._say = say
        self._pool = ThreadPoolExecutor(len(stages))
        self._one_by_one = ThreadPoolExecutor(1)
        self._trials: dict[str, list[Future[Verdict]]] = {}

    def begin(self, faults: Iterable[Fault]) -> None:
        """Have all their trials done, in time."""
        for fault in sorted(faults, key=lambda fault: fault.alone):
            others = [trial for trials in self._trials.values() for trial in trials]
            self._trials[fault.name] = [self._submit(fault, number, others) for number in range(self._times)]

    def verdicts(self, fault: Fault) -> list[Verdict]:
        """What became of one fault's trials; waits for them."""
        return [trial.result() for trial in self._trials[fault.name]]

    def end(self) -> None:
        """Begin no more trials, and wait for those that are at work."""
        for pool in (self._one_by_one, self._pool):
            pool.shutdown(cancel_futures=True)

    def _submit(self, fault: Fault, number: int, others: Sequence[Future[Verdict]]) -> Future[Verdict]:
        if not fault.alone:
            return self._pool.submit(self._trial, fault, number)
        return self._one_by_one.submit(lambda: (wait(others), self._trial(fault, number))[1])

    def _trial(self, fault: Fault, number: int) -> Verdict:
        stage = self._free.get()
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            verdict = run_trial(fault, stage, directory, number, self._seed)
        except BaseException as error:  # a trial that cannot be judged is one that went wrong
            verdict = Verdict(wrong=[_in_words(error)])
        finally:
            self._free.put(stage)
        if verdict.clean:
            shutil.rmtree(directory)
        where = "" if verdict.clean else f", files in {directory}"
        self._say(f"{fault.name}, trial {number + 1}: {verdict}{where}")
        return verdict


def _in_words(error: BaseException) -> str:
    """What it was, and where in the trial."""
    steps = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(step.filename).name}:{step.lineno}" for step in steps if Path(step.filename).parent == _HERE]
    return f"{type(error).__name__}: {error} (at {where[-1]})"


def chosen(request: pytest.FixtureRequest) -> list[Fault]:
    """The faults of the tests that are to run in the file of this request."""
    items = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    return [fault for item in items if isinstance(fault := item.callspec.params["fault"], Fault)]
