"""A cancel at any moment, and two workers at once: at most one Job is ever let go, and none is left."""

import threading
from collections.abc import Callable

import pytest
from fake_kubernetes import Request
from kube_lab import Follow, Lab, eventually, numbered

from worker.kube import manifest


def all_gone(lab: Lab) -> None:
    """Nothing of the run is left in the namespace."""
    eventually(lambda: not lab.fake.all("jobs"))
    eventually(lambda: not lab.fake.all("pods"))
    assert len(lab.fake.let_go) <= 1


@pytest.fixture
def headed(lab: Lab) -> Callable[[], None]:
    """Has a head pod run as soon as a Job is let go, as the Job's controller does."""

    def begin() -> None:
        def look(request: Request, phase: str) -> None:
            if request.method == "PATCH" and phase == "after" and not lab.fake.all("pods"):
                job = lab.fake.get("jobs", lab.job)
                if job is not None and not job["spec"]["suspend"]:
                    lab.fake.start_pod("head", lab.head_labels(), owner=job)

        lab.fake.hooks.append(look)

    return begin


def test_a_cancel_before_anything(lab: Lab) -> None:
    """No Job is made."""
    outcome = lab.carry(cancelled=lambda: True).end()
    assert (outcome.code, outcome.cancelled) == (None, True)
    assert lab.fake.count("POST", "/jobs$") == 0
    all_gone(lab)


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 14))
def test_a_cancel_at_any_request(lab: Lab, headed: Callable[[], None], number: int, phase: str) -> None:
    """Whether it comes just before or just after the n-th request: the run is cancelled and no Job stays."""
    wish = threading.Event()
    headed()

    def look(_: Request, when: str) -> None:
        if when == phase and lab.fake.count() >= number:
            wish.set()

    lab.fake.hooks.append(look)
    follow = lab.carry(cancelled=wish.is_set)
    if not _comes(wish, follow):
        follow.cancel()
    outcome = follow.end()
    assert outcome.cancelled
    assert outcome.code in (None, 143)
    all_gone(lab)


def _comes(wish: threading.Event, follow: Follow) -> bool:
    """Whether the request came, while the run was carried; a quiet run makes only so many."""
    return wish.wait(0.8) and follow.error is None


def test_a_cancel_at_work(lab: Lab) -> None:
    """The Job is deleted with its pods, by its uid; the head's last words are read, task pods go, and then it ends."""
    follow = lab.carry()
    head = lab.head()
    task = lab.task()
    lab.fake.write(head, *numbered(3))
    eventually(lambda: len(follow.texts) == 3)
    job = lab.job_at_work()
    assert job is not None
    lab.fake.stuck.update((lab.job, head, task))
    follow.cancel()
    eventually(lambda: lab.fake.deletions)
    name, options = lab.fake.deletions[0]
    assert name == f"jobs/{lab.job}"
    assert options["propagationPolicy"] == "Foreground"
    assert options["preconditions"] == {"uid": job["metadata"]["uid"]}
    lab.fake.write(head, "Killing running tasks")
    lab.fake.end_container(head, 143)
    lab.fake.remove("pods", head)
    lab.fake.remove("jobs", lab.job)
    eventually(lambda: f"pods/{task}" in {name for name, _ in lab.fake.deletions})
    assert follow.alive
    lab.fake.remove("pods", task)
    outcome = follow.end()
    assert (outcome.code, outcome.cancelled, outcome.killed) == (143, True, False)
    assert follow.texts == [*numbered(3), "Killing running tasks"]
    assert len(lab.fake.deletions) == len({name for name, _ in lab.fake.deletions})


def test_a_head_that_had_to_be_killed(lab: Lab) -> None:
    """That it did not stop within its grace is told."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.stuck.update((lab.job, head))
    follow.cancel()
    eventually(lambda: lab.fake.deletions)
    lab.fake.end_container(head, 137)
    lab.fake.remove("pods", head)
    lab.fake.remove("jobs", lab.job)
    outcome = follow.end()
    assert (outcome.code, outcome.cancelled, outcome.killed) == (137, True, True)


def test_a_cancel_after_the_end(lab: Lab) -> None:
    """A run that ended by itself keeps its code, whatever is wished later, also by the next worker."""
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    outcome = lab.carry(cancelled=lambda: True).end()
    assert outcome.code in (0, None)
    all_gone(lab)


def test_a_cancel_while_the_server_is_away(lab: Lab) -> None:
    """The wish waits until the server is back."""
    follow = lab.carry()
    lab.head()
    fault = lab.fake.answer(503, "*", "/leases|DELETE|/jobs/", times=1e9)
    follow.cancel()
    asked = lab.fake.count("GET", "/leases/")
    eventually(lambda: lab.fake.count("GET", "/leases/") > asked + 2)
    assert follow.alive
    lab.fake.mend(fault)
    assert follow.end().cancelled
    all_gone(lab)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("after", [False, True])
def test_a_cancel_whose_calls_break(lab: Lab, method: str, after: bool) -> None:
    """Each call of a cancel may be cut, before or after its effect."""
    follow = lab.carry()
    lab.head()
    eventually(lambda: follow.started)
    lab.fake.reset(method, "/leases/|/jobs/|/pods/", times=2, after=after)
    follow.cancel()
    assert follow.end().cancelled
    all_gone(lab)


@pytest.mark.parametrize("delay", [False, True])
def test_a_job_that_was_made_and_not_noted(lab: Lab, delay: bool) -> None:
    """A worker died between making the Job and noting it; the next one, which is to cancel, removes it."""
    lab.fake.add("jobs", manifest.job(manifest.order(lab.run, lab.settings)))
    if delay:
        lab.fake.answer(503, "GET", r"/jobs\?", times=3)
    outcome = lab.carry(cancelled=lambda: True).end()
    assert (outcome.code, outcome.cancelled) == (None, True)
    assert lab.fake.let_go == []
    all_gone(lab)


def test_a_job_that_is_made_while_the_run_is_ended(lab: Lab) -> None:
    """A worker that slept makes the Job after the cancel and dies; who cancels sees it and removes it."""
    lab.fake.answer(404, "GET", rf"/jobs/{lab.job}")
    made = threading.Event()

    def hold(request: Request, phase: str) -> None:
        """The pods are told only when the Job, made meanwhile, has been removed."""
        if phase == "before" and request.matches("GET", r"/pods\?label") and not made.is_set():
            made.set()
            eventually(lambda: lab.fake.count("GET", f"/jobs/{lab.job}"), 5)
            lab.fake.add("jobs", manifest.job(manifest.order(lab.run, lab.settings)))
            eventually(lambda: lab.fake.deletions, 5)

    lab.fake.hooks.append(hold)
    assert lab.carry(cancelled=lambda: True).end().cancelled
    eventually(lambda: not lab.fake.all("jobs"))
    assert lab.fake.let_go == []


def test_a_foreign_job_is_not_cancelled(lab: Lab) -> None:
    """A Job of the same name that is not the run's stays as it is."""
    foreign = lab.fake.add("jobs", {"metadata": {"name": lab.job}, "spec": {"suspend": False}})
    assert lab.carry(cancelled=lambda: True).end().cancelled
    assert lab.fake.get("jobs", lab.job) == foreign


# Two workers.


def test_two_workers_at_once(lab: Lab, headed: Callable[[], None]) -> None:
    """Both carry the run to its end, and there is one Job."""
    headed()
    follows = [lab.carry() for _ in range(2)]
    eventually(lambda: lab.fake.get("pods", "head"))
    lab.fake.write("head", *numbered(20))
    lab.fake.finish("head", lab.job)
    assert [follow.end().code for follow in follows] == [0, 0]
    assert [follow.texts for follow in follows] == [numbered(20)] * 2
    assert len(set(lab.fake.let_go)) == 1
    assert lab.fake.count("POST", "/jobs$") <= 2


class Sleeper:
    """Holds the first request that matches, before or after its effect, until it is woken."""

    def __init__(self, lab: Lab, method: str, pattern: str, phase: str) -> None:
        self._what = (method, pattern, phase)
        self.asleep = threading.Event()
        self.wake = threading.Event()
        lab.fake.hooks.append(self._look)

    def _look(self, request: Request, phase: str) -> None:
        method, pattern, when = self._what
        if phase == when and request.matches(method, pattern) and not self.asleep.is_set():
            self.asleep.set()
            self.wake.wait(20)


STEPS = [
    ("GET", "/leases/", "after"),
    ("POST", "/leases$", "before"),
    ("POST", "/leases$", "after"),
    ("POST", "/jobs$", "before"),
    ("POST", "/jobs$", "after"),
    ("POST", "/secrets$", "before"),
    ("POST", "/secrets$", "after"),
    ("PUT", "/leases/", "before"),
    ("PUT", "/leases/", "after"),
    ("PATCH", "/jobs/", "before"),
    ("PATCH", "/jobs/", "after"),
]


@pytest.mark.parametrize(("method", "pattern", "phase"), STEPS)
def test_one_sleeps_while_the_other_cancels(
    lab: Lab, headed: Callable[[], None], method: str, pattern: str, phase: str
) -> None:
    """Wherever a worker sleeps on its way, what the other cancelled does not come to life when it wakes."""
    headed()
    sleeper = Sleeper(lab, method, pattern, phase)
    slow = lab.carry()
    assert sleeper.asleep.wait(5)
    assert lab.carry(cancelled=lambda: True).end().cancelled
    released = list(lab.fake.let_go)
    sleeper.wake.set()
    outcome = slow.end()
    assert outcome.cancelled or outcome.code is None
    all_gone(lab)
    assert lab.fake.let_go == released or phase == "before"


@pytest.mark.parametrize(("method", "pattern", "phase"), STEPS)
def test_one_sleeps_while_the_other_carries(
    lab: Lab, headed: Callable[[], None], method: str, pattern: str, phase: str
) -> None:
    """Wherever a worker sleeps on its way, the other's run is the only one, also when it has ended and is gone."""
    headed()
    sleeper = Sleeper(lab, method, pattern, phase)
    slow = lab.carry()
    assert sleeper.asleep.wait(5)
    quick = lab.carry()
    eventually(lambda: lab.fake.get("pods", "head"))
    lab.fake.finish("head", lab.job)
    assert quick.end().code == 0
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", "head")
    sleeper.wake.set()
    assert slow.end().code is None
    assert len(set(lab.fake.let_go)) == 1
    eventually(lambda: not lab.fake.all("jobs"))


def test_a_worker_that_wakes_after_its_run_has_nothing_granted(lab: Lab) -> None:
    """It slept before it had asked for the slot; meanwhile its run was cancelled, and another came and went."""
    sleeper = Sleeper(lab, "GET", "/leases/", "before")
    slow = lab.carry()
    assert sleeper.asleep.wait(5)
    quick = lab.carry(cancelled=lambda: True)
    assert quick.end().cancelled
    other = lab.carry(run=lab.other_run())
    eventually(lambda: len(lab.fake.let_go) == 1)
    lab.fake.finish_job(lab.other_run().job_name)
    other.end()
    sleeper.wake.set()
    assert slow.end().code is None
    assert len(lab.fake.let_go) == 1
    assert lab.fake.get("jobs", lab.job) is None


def test_a_worker_that_wakes_under_another_run(lab: Lab) -> None:
    """A worker that slept since before another run took the slot lets nothing go while that one works."""
    sleeper = Sleeper(lab, "PUT", "/leases/", "before")
    slow = lab.carry()
    assert sleeper.asleep.wait(5)
    # Its Job is removed by hand, and the next run begins.
    lab.fake.remove("jobs", lab.job)
    other = lab.other_run()
    quick = lab.carry(run=other)
    eventually(lambda: len(lab.fake.let_go) == 1)
    sleeper.wake.set()
    assert slow.end().code is None
    assert len(lab.fake.let_go) == 1
    assert [job["metadata"]["name"] for job in lab.fake.all("jobs")] == [other.job_name]
    lab.fake.finish_job(other.job_name)
    quick.end()
