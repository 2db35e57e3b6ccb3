"""The faults of the worker, wherever the run works."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults.trial import Scene

_FROZEN_SECONDS = 60
# Celery's own warm shutdown is among them, and a machine that has other trials to do.
_SECONDS_TO_LEAVE = 20
Injection = Callable[[Scene], float | None]


def worker_killed(which: slice) -> Injection:
    """SIGKILL for the parent, its child, or both."""

    def inject(scene: Scene) -> None:
        scene.signal(scene.pids("worker@", 2)[which], signal.SIGKILL)

    return inject


def worker_frozen(scene: Scene) -> None:
    """SIGSTOP, and after a minute SIGCONT."""
    with frozen(scene, scene.pids("worker@", 2)):
        time.sleep(_FROZEN_SECONDS)


def worker_frozen_beside_another(scene: Scene) -> float:
    """The other takes the run over; the frozen one wakes up and must find that it may write no more."""
    first = scene.pids("worker@", 2)
    scene.lasting.enter_context(another(scene, "worker@", ["-n", "worker@second"]))
    with frozen(scene, first):
        frozen_at = time.time()
        was_at_work = any(viewer.numbers for viewer in scene.viewers)
        time.sleep(_FROZEN_SECONDS)
    scene.wait_for_line_after(time.time())
    if was_at_work:
        scene.service.wait(lambda: _says(scene, "worker", '"action":"run.left"'))
    return frozen_at


def _says(scene: Scene, program: str, words: str) -> bool:
    return words in (scene.directory / "data" / "logs" / f"{program}.log").read_text(errors="replace")


def worker_replaced_twice(scene: Scene) -> None:
    """SIGTERM, as by a rolling update, and once more as soon as there is a new one."""
    for pause in (scene.rng.uniform(0, 2), 0):
        [parent, *_] = scene.pids("worker@")
        asked_at = time.monotonic()
        scene.signal([parent], signal.SIGTERM)
        scene.service.wait(partial(_gone, scene, parent), 60)
        took = time.monotonic() - asked_at
        scene.verdict.check(took < _SECONDS_TO_LEAVE, f"a worker that was told to stop stayed for {took:.0f} s")
        scene.service.wait(partial(_replaced, scene, parent), 60)
        time.sleep(pause)


def _gone(scene: Scene, parent: int) -> bool:
    return parent not in scene.service.children("worker@")


def _replaced(scene: Scene, parent: int) -> bool:
    return scene.service.children("worker@")[:1] not in ([], [parent])


def worker_away_at_the_end(scene: Scene) -> None:
    """The run ends by itself while there is no worker."""
    with worker_away(scene):
        scene.stage.hurry()
        scene.service.wait(lambda: any("ended" in entry for entry in scene.stage.journal()), 60)


@contextmanager
def worker_away(scene: Scene) -> Iterator[None]:
    """There is none, and none is started, in the block."""
    with frozen(scene, [scene.service.pid]):  # which would start it again
        scene.signal(scene.pids("worker@"), signal.SIGKILL)
        yield


@contextmanager
def frozen(scene: Scene, pids: list[int]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT after the block."""
    scene.signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        scene.signal(pids, signal.SIGCONT)


@contextmanager
def another(scene: Scene, like: str, more: list[str]) -> Iterator[None]:
    """A second process like that one, as somebody might start it by mistake."""
    command = Path(f"/proc/{scene.pids(like)[0]}/cmdline").read_bytes().split(b"\0")[:-1]
    with (scene.directory / "another.log").open("ab") as log:
        arguments = [*command, *(word.encode() for word in more)]
        process = subprocess.Popen(arguments, env=scene.environment_of(like), stdout=log, stderr=log)
    try:
        time.sleep(3)  # it starts
        yield
        scene.verdict.check(process.poll() is None, f"the second {like} was not there to the end")
    finally:
        process.terminate()
        process.wait(60)
