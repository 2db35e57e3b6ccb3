"""A run's way through Kubernetes, on a fake API server: from the first request to the outcome."""

import base64
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_kubernetes import Json, Request
from kube_lab import Lab, eventually, numbered
from kubernetes.config import kube_config

from shared.errors import CannotStart
from worker.cluster import Record
from worker.kube import manifest, patience
from worker.kube.api import Api
from worker.kube.cluster import KubernetesCluster

JOBS = r"/jobs$"


@pytest.fixture
def kubeconfig(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig that names the fake server."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: lab
clusters: [{{name: lab, cluster: {{server: "{lab.fake.url}"}}}}]
users: [{{name: me, user: {{token: secret}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]
"""
    )
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def test_a_run_from_follow_to_outcome(lab: Lab, kubeconfig: None) -> None:
    """The Job is made and let go, its log is given line by line, and its end is told."""
    cluster = KubernetesCluster(lab.settings)
    assert "namespace lab" in cluster.check()
    records: list[Record] = []
    started: list[bool] = []
    chunks = cluster.follow(lab.run, {})
    written = False
    for chunk in chunks:
        records += chunk.records
        started.append(chunk.started)
        if lab.job_at_work() and not written:
            written = True
            head = lab.head()
            lab.fake.write(head, *numbered(100))
            lab.fake.finish(head, lab.job)
    assert [record.text for record in records] == numbered(100)
    assert {(record.pod, record.container, record.stream) for record in records} == {("head", "nextflow", "all")}
    assert started[0] is False
    assert started[-1] is True
    outcome = cluster.outcome(lab.run)
    assert (outcome.code, outcome.cancelled, outcome.reason) == (0, False, None)
    assert outcome.finished_at is not None


def test_a_cluster_that_cannot_be_asked_says_why(lab: Lab, kubeconfig: None) -> None:
    """A refusal and an absence are both told in words, and a good answer is not asked for again at once."""
    cluster = KubernetesCluster(lab.settings)
    lab.fake.answer(403)
    with pytest.raises(CannotStart, match="refuses to show the Jobs of namespace lab"):
        cluster.check()
    lab.fake.answer(503)
    with pytest.raises(CannotStart, match="503"):
        cluster.check()
    assert "kubernetes" in cluster.check()
    assert "kubernetes" in cluster.check()
    assert lab.fake.count() == 3


def test_the_order_of_things(lab: Lab) -> None:
    """The Job is made suspended, its Secret belongs to it, and the Lease has its uid before it is let go."""
    seen: list[tuple[str, str]] = []

    def look(request: Request, phase: str) -> None:
        if request.method in ("POST", "PUT", "PATCH") and phase == "after":
            seen.append((request.method, request.path.rsplit("/", 1)[-1]))
        if request.method == "PATCH" and phase == "before":
            lease, job = lab.fake.get("leases", "nextflow-controller"), lab.fake.get("jobs", lab.job)
            assert lease is not None
            assert job is not None
            noted.append(lease["metadata"]["annotations"]["nextflow-controller/job-uid"] == job["metadata"]["uid"])
            noted.append(job["spec"]["suspend"])

    noted: list[bool] = []
    lab.fake.hooks.append(look)
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert seen == [
        ("POST", "leases"),
        ("POST", "jobs"),
        ("POST", "secrets"),
        ("PUT", "nextflow-controller"),
        ("PATCH", lab.job),
    ]
    assert noted == [True, True]
    secret, job = lab.fake.get("secrets", lab.job), lab.fake.get("jobs", lab.job)
    assert secret is not None
    assert job is not None
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    files = [base64.b64decode(data) for data in secret["data"].values()]
    assert b"println 'hello'\n" in files


def own_job(lab: Lab, **spec: bool) -> Json:
    """The run's Job, made by somebody who then slept."""
    job = manifest.job(manifest.order(lab.run, lab.settings))
    job["spec"] |= spec
    return lab.fake.add("jobs", job)


def test_an_existing_job_is_taken_over(lab: Lab) -> None:
    """The run's own Job, still suspended, is let go, and no second one is made."""
    uid = own_job(lab)["metadata"]["uid"]
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert lab.fake.let_go == [uid]
    assert len(lab.fake.all("jobs")) == 1


@pytest.mark.parametrize("resource", ["leases", "jobs", "secrets"])
def test_a_create_whose_answer_was_lost_is_done_once(lab: Lab, resource: str) -> None:
    """A connection reset after the effect leads to no second object and no failure."""
    lab.fake.reset("POST", rf"/{resource}$", after=True)
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert lab.fake.count("POST", rf"/{resource}$") == 2 or resource == "leases"
    assert len(lab.fake.let_go) == len(lab.fake.all("jobs")) == 1


@pytest.mark.parametrize(("method", "pattern"), [("PUT", "/leases/"), ("PATCH", "/jobs/")])
def test_a_change_whose_answer_was_lost_is_done_once(lab: Lab, method: str, pattern: str) -> None:
    """Noting the uid and letting go may be repeated."""
    lab.fake.reset(method, pattern, after=True)
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert len(lab.fake.let_go) == len(lab.fake.all("jobs")) == 1


def test_a_foreign_job_in_the_way(lab: Lab) -> None:
    """A Job of the same name that is not the run's is left alone, and said to be in the way."""
    foreign = lab.fake.add("jobs", {"metadata": {"name": lab.job}, "spec": {"suspend": False}})
    assert "Delete it" in str(lab.carry().failure())
    assert lab.fake.get("jobs", lab.job) == foreign


@pytest.mark.parametrize("status", [403, 404, 422])
@pytest.mark.parametrize("resource", ["leases", "jobs", "secrets"])
def test_what_is_refused_cannot_start(lab: Lab, status: int, resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal ends the run with advice, and no Job is left that waits for ever."""
    monkeypatch.setattr(patience, "_FORBIDDEN_SECONDS", 0.0)
    lab.fake.answer(status, "POST", rf"/{resource}$")
    failure = lab.carry().failure()
    assert isinstance(failure, CannotStart)
    assert "Check the rights of the worker's service account" in str(failure)
    eventually(lambda: lab.fake.all("jobs") == [])
    assert lab.fake.let_go == []


def test_a_job_that_may_not_be_let_go_is_taken_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last step is refused, the Job that was made does not stay."""
    monkeypatch.setattr(patience, "_FORBIDDEN_SECONDS", 0.0)
    lab.fake.answer(403, "PATCH", times=99)
    assert isinstance(lab.carry().failure(), CannotStart)
    eventually(lambda: lab.fake.all("jobs") == [])


def test_what_is_forbidden_for_a_moment_ends_nothing(lab: Lab) -> None:
    """An API server that has just started forbids everything: when a run starts, and when a worker takes it over."""
    lab.fake.answer(403, "*", ".", times=3)
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(3))
    eventually(lambda: len(first.texts) == 3)
    first.leave()
    lab.fake.answer(403, "*", ".", times=9)
    second = lab.carry(place=first.place)
    eventually(lambda: second.started)
    lab.fake.answer(403, "GET", r"/pods\?labelSelector|/jobs\?labelSelector", times=3)
    lab.fake.finish(head, lab.job)
    assert second.end().code == 0
    assert len(lab.fake.let_go) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_job_at_work_is_not_taken_back(lab: Lab, status: int) -> None:
    """Whoever takes over a run lets it go once more, and if that is refused it has done so all the same."""
    first = lab.carry()
    head = lab.head()
    eventually(lambda: first.started)
    first.leave()
    lab.fake.answer(status, "PATCH", times=99)
    second = lab.carry()
    eventually(lambda: second.started)
    lab.fake.finish(head, lab.job)
    assert second.end().code == 0
    assert lab.fake.count("DELETE", "/jobs/") == 0


def test_a_run_goes_on_where_no_task_of_its_session_writes(lab: Lab) -> None:
    """A task that an earlier run left alive is ended before the Job is made."""
    session = f"uuid-{lab.run.session_id}"
    lab.fake.start_pod("nf-left", {manifest.RUN_NAME_LABEL: "earlier", manifest.SESSION_LABEL: session})
    lab.fake.start_pod("nf-other", {manifest.RUN_NAME_LABEL: "other", manifest.SESSION_LABEL: "uuid-other"})
    follow = lab.carry(run=replace(lab.run, resumes=True))
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    names = {pod["metadata"]["name"] for pod in lab.fake.all("pods")}
    assert "nf-left" not in names
    assert "nf-other" in names


def test_a_pipeline_that_is_gone_does_not_end_a_run_at_work(lab: Lab) -> None:
    """What a Job was made from is read to make it, and not again by the next worker."""
    first = lab.carry()
    head = lab.head()
    first.leave()
    big = lab.settings.pipelines_dir / "hello" / "big.bin"
    big.write_bytes(b"x" * 800_000)
    second = lab.carry()
    eventually(lambda: second.started)
    lab.fake.finish(head, lab.job)
    assert second.end().code == 0


def test_a_pipeline_that_is_too_big_can_be_cancelled(lab: Lab) -> None:
    """A cancel of what cannot start ends the Job that was there."""
    own_job(lab)
    (lab.settings.pipelines_dir / "hello" / "big.bin").write_bytes(b"x" * 800_000)
    follow = lab.carry(cancelled=lambda: True)
    assert follow.end().cancelled
    assert lab.fake.all("jobs") == []


# The API server is away.

CALLS = {
    "claim": ("GET", "/leases/"),
    "make the Lease": ("POST", "/leases$"),
    "make the Job": ("POST", "/jobs$"),
    "make the Secret": ("POST", "/secrets$"),
    "note the uid": ("PUT", "/leases/"),
    "let go": ("PATCH", "/jobs/"),
    "list Jobs": ("GET", r"/jobs\?fieldSelector|/jobs\?labelSelector"),
    "list pods": ("GET", r"/pods\?labelSelector"),
    "list events": ("GET", r"/events\?fieldSelector"),
    "watch Jobs": ("GET", r"/jobs\?watch"),
    "watch pods": ("GET", r"/pods\?watch"),
    "read the log": ("GET", r"/log\?"),
}


@pytest.mark.parametrize("fault", ["401", "429", "500", "503", "reset", "reset after"])
@pytest.mark.parametrize("call", CALLS)
def test_any_call_may_fail_for_a_while(lab: Lab, call: str, fault: str) -> None:
    """Two failures in a row of any call change nothing but the time."""
    method, pattern = CALLS[call]
    if fault.startswith("reset"):
        lab.fake.reset(method, pattern, times=2, after=fault.endswith("after"))
    else:
        lab.fake.answer(int(fault), method, pattern, times=2, after=1)
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(10))
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    assert follow.texts == numbered(10)
    assert follow.notices == []
    assert len(lab.fake.let_go) == 1


@pytest.mark.parametrize("pattern", ["/leases", "/jobs", "/secrets"])
def test_a_call_that_hangs_is_given_up_and_repeated(lab: Lab, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer within the time of a call is a failure like others, whether the call had its effect or not."""
    monkeypatch.setattr(Api._call, "__defaults__", (0.2,))
    for after in (False, True):
        lab.fake.hang("POST", pattern, after=after)
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert len(lab.fake.let_go) == len(lab.fake.all("jobs")) == 1


def test_a_long_outage_at_the_start_is_told_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits for the API server says so, and starts when it is back."""
    monkeypatch.setattr("worker.kube.patience._AWAY_SECONDS", 0.3)
    fault = lab.fake.answer(503, times=1e9)
    follow = lab.carry()
    eventually(lambda: follow.notices)
    before = lab.fake.count()
    eventually(lambda: lab.fake.count() > before + 1)
    lab.fake.mend(fault)
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    assert [(notice.level, notice.source) for notice in follow.notices] == [("warning", "kubernetes")]


def test_a_server_that_is_away_in_mid_run_is_told_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on meanwhile, one warning is told, and what was written is read when the server is back."""
    monkeypatch.setattr("worker.kube.patience._AWAY_SECONDS", 0.3)
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(10))
    eventually(lambda: len(follow.texts) == 10)
    lab.fake.stop()
    lab.fake.write(head, *numbered(10, 11))
    eventually(lambda: follow.notices)
    lab.fake.start()
    eventually(lambda: len(follow.texts) == 20)
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    assert follow.texts == numbered(20)
    assert [(notice.level, notice.source) for notice in follow.notices] == [("warning", "kubernetes")]


def test_a_run_that_ends_while_the_pods_cannot_be_seen(lab: Lab) -> None:
    """The news of the Job's end may come before any news of its pod; the log is read all the same."""
    fault = lab.fake.answer(500, "GET", r"/pods\?watch", times=1e9)
    follow = lab.carry()
    eventually(lambda: lab.fake.count("GET", r"/pods\?watch") > 1)
    head = lab.head()
    lab.fake.write(head, *numbered(10))
    lab.fake.finish(head, lab.job, code=3)
    eventually(lambda: not follow.alive or lab.fake.count("GET", r"/pods\?watch") > 4)
    lab.fake.mend(fault)
    assert follow.end().code == 3
    assert follow.texts == numbered(10)


# How it ends.


@pytest.mark.parametrize(
    ("state", "pod", "condition", "words"),
    [
        ({"code": 137, "reason": "OOMKilled"}, {}, "BackoffLimitExceeded", "NEXTFLOW_MEMORY"),
        ({"code": 143}, {}, "DeadlineExceeded", "deadline of 604800 s"),
        ({"code": 137}, {"reason": "Evicted", "message": "low on memory"}, "BackoffLimitExceeded", "Evicted"),
        ({"code": 128, "reason": "StartError", "message": "no sh"}, {}, "BackoffLimitExceeded", "no sh"),
    ],
)
def test_a_head_that_ended_badly(lab: Lab, state: Json, pod: Json, condition: str, words: str) -> None:
    """What an exit code does not say, Kubernetes' own reason does."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.end_container(head, **state)
    lab.fake.change("pods", head, {"status": pod})
    lab.fake.finish_job(lab.job, "Failed", condition)
    outcome = follow.end()
    assert outcome.code == state["code"]
    assert words in (outcome.reason or "")


def test_a_job_that_failed_without_a_pod(lab: Lab) -> None:
    """The Job's own condition is told when no pod can tell anything."""
    follow = lab.carry()
    eventually(lab.job_at_work)
    lab.fake.finish_job(lab.job, "Failed", "SomethingElse", "the quota is full")
    outcome = follow.end()
    assert outcome.code is None
    assert "SomethingElse" in (outcome.reason or "")
    assert "the quota is full" in (outcome.reason or "")


def test_a_complete_job_has_succeeded_whatever_became_of_its_pod(lab: Lab) -> None:
    """A node that is taken away takes ended pods along; the Job remembers."""
    follow = lab.carry()
    eventually(lab.job_at_work)
    lab.fake.finish_job(lab.job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    outcome = follow.end()
    assert (outcome.code, outcome.reason, outcome.cancelled) == (0, None, False)
    assert follow.started


def test_a_job_deleted_from_outside(lab: Lab) -> None:
    """The head pod that it left behind is deleted, its log is read, and the reason is told."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(5))
    eventually(lambda: len(follow.texts) == 5)
    lab.fake.stuck.add(head)
    lab.fake.remove("jobs", lab.job)
    eventually(lambda: any(name == f"pods/{head}" for name, _ in lab.fake.deletions))
    lab.fake.stuck.clear()
    lab.fake.write(head, "last words")
    lab.fake.end_container(head, 143)
    lab.fake.remove("pods", head)
    outcome = follow.end()
    assert outcome.code == 143
    assert not outcome.cancelled
    assert follow.texts == [*numbered(5), "last words"]
    assert len(lab.fake.all("jobs")) == 0


def test_a_job_deleted_from_outside_with_its_pod(lab: Lab) -> None:
    """When nobody saw how Nextflow ended, that is what is told, and no second Job is made by the next worker."""
    first = lab.carry()
    head = lab.head()
    eventually(lambda: first.started)
    first.leave()
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", head)
    outcome = lab.carry().end()
    assert outcome.code is None
    assert "deleted from outside" in (outcome.reason or "")
    assert len(lab.fake.let_go) == 1


def test_what_nextflow_left_is_reaped(lab: Lab) -> None:
    """Task pods that outlive the head are deleted, and the run's end waits until the last is gone."""
    follow = lab.carry()
    head = lab.head()
    for number in range(3):
        lab.task(f"nf-{number}")
    lab.fake.stuck.add("nf-2")
    lab.fake.finish(head, lab.job, code=1)
    eventually(lambda: {name for name, _ in lab.fake.deletions} == {"pods/nf-0", "pods/nf-1", "pods/nf-2"})
    assert follow.alive
    lab.fake.remove("pods", "nf-2")
    assert follow.end().code == 1
    assert [pod["metadata"]["name"] for pod in lab.fake.all("pods")] == [head]
    assert all("uid" in options["preconditions"] for _, options in lab.fake.deletions)


def test_pods_that_do_not_go_are_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost node keeps a pod from going; that is told once, and the run waits."""
    monkeypatch.setattr("worker.kube.removal._STUCK_SECONDS", 0.1)
    follow = lab.carry()
    head = lab.head()
    lab.fake.stuck.add(lab.task())
    lab.fake.finish(head, lab.job)
    notice = eventually(lambda: [notice for notice in follow.notices if notice.key == "reap"])[0]
    assert "nf-1" in notice.message
    lab.fake.remove("pods", "nf-1")
    assert follow.end().code == 0
    assert len(follow.notices) == 1


def test_a_head_that_does_not_go_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel waits for a lost node too, and people know what for."""
    monkeypatch.setattr("worker.kube.carriage._LATE_SECONDS", -1000.0)
    follow = lab.carry()
    head = lab.head()
    eventually(lambda: follow.started)
    lab.fake.stuck.add(head)
    follow.cancel()
    notice = eventually(lambda: [notice for notice in follow.notices if notice.key == "reap"])[0]
    assert head in notice.message
    lab.fake.end_container(head, 143)
    lab.fake.remove("pods", head)
    assert follow.end().cancelled


# Another run in the same namespace.


def test_another_run_at_work_is_waited_for(lab: Lab) -> None:
    """A run whose slot is taken by a live Job waits, says so once, and goes on when that Job has ended."""
    other = lab.other_run()
    first = lab.carry(run=other)
    eventually(lambda: lab.fake.let_go)
    second = lab.carry()
    eventually(lambda: second.notices)
    asked = lab.fake.count("GET", "/leases/")
    eventually(lambda: lab.fake.count("GET", "/leases/") > asked)
    assert lab.fake.get("jobs", lab.job) is None
    lab.fake.finish_job(other.job_name)
    assert first.end().code == 0
    lab.fake.finish(lab.head(), lab.job)
    assert second.end().code == 0
    assert [notice.level for notice in second.notices] == ["warning"]
    assert other.run_id in second.notices[0].message


def test_a_run_that_waits_for_the_slot_can_be_cancelled(lab: Lab) -> None:
    """It ends at once, and the other's Job is left alone."""
    lab.carry(run=lab.other_run())
    eventually(lambda: lab.fake.let_go)
    second = lab.carry()
    eventually(lambda: second.notices)
    second.cancel()
    outcome = second.end()
    assert (outcome.code, outcome.cancelled) == (None, True)
    assert [job["metadata"]["name"] for job in lab.fake.all("jobs")] == [lab.other_run().job_name]


# Threads.


def own_threads(before: set[threading.Thread]) -> list[str]:
    """The carriage's threads that are alive."""
    names = ("carriage", "watch", "log")
    return [thread.name for thread in threading.enumerate() if thread not in before and thread.name.startswith(names)]


def test_who_leaves_takes_everything_along(lab: Lab) -> None:
    """When the chunks are closed in mid-run, all threads end within two seconds and no stream stays open."""
    before = set(threading.enumerate())
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, "a line")
    eventually(lambda: follow.texts and lab.fake.open_streams("watch=true") == 3)
    assert len(own_threads(before)) == 5
    follow.leave()
    eventually(lambda: not own_threads(before), 2)
    eventually(lambda: not lab.fake.open_streams(), 2)
    assert lab.fake.deletions == []


def test_a_log_that_is_found_as_somebody_leaves(lab: Lab) -> None:
    """A pod that is seen only after the chunks were closed is not followed for ever."""
    before = set(threading.enumerate())
    lab.fake.answer(500, "GET", r"/pods\?watch", times=1e9)
    asked, wake = threading.Event(), threading.Event()

    def sleep(request: Request, phase: str) -> None:
        if phase == "after" and request.matches("GET", r"/pods\?label") and lab.fake.all("pods"):
            asked.set()
            wake.wait(10)

    lab.fake.hooks.append(sleep)
    follow = lab.carry()
    eventually(lambda: lab.fake.count("GET", r"/pods\?watch") > 1)
    lab.fake.write(lab.head(), "a line")
    lab.fake.finish_job(lab.job)
    assert asked.wait(5)
    follow.leave()
    wake.set()
    eventually(lambda: not own_threads(before), 2)
    eventually(lambda: not lab.fake.open_streams(), 2)


def test_an_ended_run_leaves_no_thread(lab: Lab) -> None:
    """After the outcome, nothing of the carriage is left."""
    before = set(threading.enumerate())
    follow = lab.carry()
    lab.fake.finish(lab.head(), lab.job)
    assert follow.end().code == 0
    eventually(lambda: not own_threads(before), 2)
    eventually(lambda: not lab.fake.open_streams(), 2)


def test_a_quiet_run_asks_for_nothing(lab: Lab) -> None:
    """While a run says nothing, no request is made besides the open streams."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, "a line")
    eventually(lambda: follow.texts and lab.fake.open_streams() == 4)
    asked, chunks = lab.fake.count(), len(follow.chunks)
    eventually(lambda: len(follow.chunks) > chunks + 50)
    assert lab.fake.count() == asked


def test_a_run_that_resumes_another_is_another(lab: Lab) -> None:
    """Two runs one after the other each have a Job of their own."""
    for number in range(2):
        run = replace(lab.run, run_id=f"run-20260131-12000{number}-aaaaaaaa", resumes=bool(number))
        follow = lab.carry(run=run)
        eventually(lambda name=run.job_name: (lab.fake.get("jobs", name) or {}).get("spec", {}).get("suspend") is False)  # type: ignore[misc]
        lab.fake.finish_job(run.job_name)
        follow.end()
    assert len(set(lab.fake.let_go)) == 2
