"""What a carriage gives of a run: the lines of its containers, and notices, each once, whoever goes on with it."""

import random

import pytest
from fake_kubernetes import Ended, Json, Reset
from kube_lab import Lab, eventually, numbered


def test_another_worker_goes_on_at_any_chunk(lab: Lab) -> None:
    """From the place of any chunk on, a new carriage gives the rest, each record and notice once."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.change("pods", head, {"status": unschedulable("0/1 nodes")})
    for first in range(1, 61, 10):
        lab.fake.write(head, *numbered(10, first))
        eventually(lambda first=first: len(follow.texts) >= first + 9)  # type: ignore[misc]
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    assert follow.texts == numbered(60)
    told, noticed, places = 0, 0, 0
    for chunk in follow.chunks:
        told, noticed = told + len(chunk.records), noticed + len(chunk.notices)
        if chunk.records or chunk.notices:
            places += 1
            other = lab.carry(chunk.place)
            assert other.end().code == 0
            assert other.texts == numbered(60 - told, told + 1)
            assert len(other.notices) == len(follow.notices) - noticed
    assert places >= 6


def test_many_workers_one_after_the_other(lab: Lab) -> None:
    """Each leaves in the midst of it; what they were given is the whole log."""
    chance = random.Random(7)
    lab.fake.log_cuts = [(chance.randint(50, 500), chance.choice([Reset, Ended])) for _ in range(10)]
    follow = lab.carry()
    head = lab.head()
    texts: list[str] = []
    for first in range(1, 101, 10):
        lab.fake.write(head, *numbered(10, first))
        eventually(lambda follow=follow: follow.texts)  # type: ignore[misc]
        follow.leave()
        texts += follow.texts
        follow = lab.carry(follow.place)
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    assert texts + follow.texts == numbered(100)


def test_a_rotated_log_is_told_once(lab: Lab) -> None:
    """Lines that nobody can read any more are a warning, and not again for the next worker."""
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(3))
    eventually(lambda: len(first.texts) == 3)
    first.leave()
    lab.fake.write(head, *numbered(3, 4))
    lab.fake.rotate(head)
    lab.fake.write(head, *numbered(3, 7))
    lab.fake.end_container(head)
    second = lab.carry(first.place)
    eventually(lambda: len(second.texts) == 3)
    assert [(notice.level, notice.source) for notice in second.notices] == [("warning", "kubernetes")]
    assert "head/nextflow" in second.notices[0].message
    second.leave()
    lab.fake.finish_job(lab.job)
    third = lab.carry(second.place)
    assert third.end().code == 0
    assert third.notices == []
    assert third.texts == []
    assert second.texts == numbered(3, 7)


@pytest.mark.parametrize("unread", [0, 1, 2, 83])
def test_what_the_kubelet_lost_is_told(lab: Lab, unread: int) -> None:
    """The head leaves word of how many lines it wrote, and how many of them have not come is told, to one worker."""
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(7), whole=False)
    eventually(lambda: len(first.texts) == 6)
    first.leave()
    second = lab.carry(first.place)
    lab.fake.end_container(head, message=f"{6 + unread} lines printed")
    eventually(lambda: first.texts + second.texts == numbered(7))
    lab.fake.finish_job(lab.job)
    assert second.end().code == 0
    told = [notice.message for notice in second.notices]
    # A last line without a newline is not among those that are counted there, and came.
    assert [message.split(" lines")[0] for message in told] == [f"{unread - 1} of the {6 + unread}"] * (unread > 1)
    assert all(f"runs/{lab.run.run_id}/log" in message for message in told)
    third = lab.carry(second.place)
    assert third.end().code == 0
    assert third.notices == []


def test_how_many_lines_are_missing_before_a_gap(lab: Lab) -> None:
    """That some are missing is told as soon as it is known, and how many when the head has left word of it."""
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(3))
    eventually(lambda: len(first.texts) == 3)
    first.leave()
    lab.fake.rotate(head)
    lab.fake.write(head, *numbered(3, 7))
    lab.fake.finish(head, lab.job, message="9 lines printed")
    second = lab.carry(first.place)
    assert second.end().code == 0
    at_once, at_the_end = second.notices
    assert "rotated before they were read" in at_once.message
    assert at_the_end.message.startswith("3 of the 9 lines")


def test_all_containers_of_the_head_are_read(lab: Lab) -> None:
    """An init container's log comes too, and that of what stands beside Nextflow, each under its name."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.start_container(head, "wait-for-disk", init=True)
    lab.fake.write(head, "waited", container="wait-for-disk")
    lab.fake.end_container(head, container="wait-for-disk")
    lab.fake.start_container(head, "proxy")
    lab.fake.write(head, "proxied", container="proxy")
    lab.fake.write(head, *numbered(2))
    lab.fake.end_container(head, container="proxy")
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    said = {(record.container, record.text) for record in follow.records}
    assert said == {("wait-for-disk", "waited"), ("proxy", "proxied"), ("nextflow", "line 1"), ("nextflow", "line 2")}


def test_a_slow_reader_holds_up_nobody_but_itself(lab: Lab) -> None:
    """Who takes no chunk for a while misses nothing, and a great log does not fill the memory meanwhile."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, "first")
    eventually(lambda: follow.texts)
    follow.pause()
    lab.fake.write(head, *(f"{number} {'x' * 1000}" for number in range(3000)))
    lab.fake.finish(head, lab.job)
    eventually(lambda: lab.fake.open_streams("watch"))
    follow._going.set()
    assert follow.end().code == 0
    assert [text.split(" ")[0] for text in follow.texts[1:]] == [str(number) for number in range(3000)]


# Notices.


def unschedulable(why: str) -> Json:
    """The status of a pod that no node takes."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    return {"conditions": [condition]}


def state(container: str, **state: Json) -> Json:
    """The status of a pod whose one container is in that state."""
    return {"containerStatuses": [{"name": container, "image": "lab/tool:1", "state": state}]}


TROUBLE: dict[str, tuple[Json, str, str]] = {
    "an image": (
        state("nf-1", waiting={"reason": "ImagePullBackOff", "message": "no such tag"}),
        "error",
        "lab/tool:1",
    ),
    "no room": (unschedulable("0/1 nodes are available"), "warning", "waits for a node"),
    "memory": (state("nf-1", terminated={"reason": "OOMKilled", "exitCode": 137}), "error", "more memory than it may"),
    "an eviction": ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "error", "Evicted"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_the_trouble_of_a_task_is_told_once(lab: Lab, trouble: str) -> None:
    """It bears the task's name; neither more news of the pod nor another worker tells it again."""
    status, level, words = TROUBLE[trouble]
    follow = lab.carry()
    head, task = lab.head(), lab.task()
    lab.fake.change("pods", task, {"status": status})
    notice = eventually(lambda: follow.notices)[0]
    assert (notice.level, notice.source, notice.task) == (level, "kubernetes", "hello (1)")
    assert words in notice.message
    for number in range(3):
        lab.fake.change("pods", task, {"metadata": {"annotations": {"n": str(number)}}})
    lab.fake.write(head, "later")
    eventually(lambda: "later" in follow.texts)
    follow.leave()
    lab.fake.finish(head, lab.job)
    other = lab.carry(follow.place)
    assert other.end().code == 0
    assert len(follow.notices) == 1
    assert other.notices == []


def warning(lab: Lab, name: str, uid: str, reason: str, kind: str = "Pod", number: int = 1) -> None:
    """An Event of type Warning."""
    about = {"kind": kind, "name": name, "uid": uid, "namespace": "lab"}
    event = {"type": "Warning", "reason": reason, "message": "it went wrong", "involvedObject": about, "count": 2}
    lab.fake.add("events", {"metadata": {"name": f"{name}.{reason}.{number}"}, **event})


def test_events_of_the_run_are_told_once(lab: Lab) -> None:
    """What no status tells, such as a refused pod or a missing volume, is told; others' events are not."""
    follow = lab.carry()
    job = eventually(lab.job_at_work)
    assert job is not None
    warning(lab, lab.job, job["metadata"]["uid"], "FailedCreate", "Job")
    head = lab.head()
    pod = lab.fake.get("pods", head)
    assert pod is not None
    eventually(lambda: follow.started)
    for number in range(3):
        warning(lab, head, pod["metadata"]["uid"], "FailedMount", number=number)
    warning(lab, head, pod["metadata"]["uid"], "Unhealthy")
    warning(lab, "stranger", "another", "FailedMount")
    eventually(lambda: len(follow.notices) == 2)
    assert sorted(notice.key.split("/")[-1] for notice in follow.notices) == ["FailedCreate", "FailedMount"]
    follow.leave()
    lab.fake.finish(head, lab.job)
    other = lab.carry(follow.place)
    assert other.end().code == 0
    assert other.notices == []
    assert len(follow.notices) == 2


def test_an_event_that_comes_before_its_pod(lab: Lab) -> None:
    """Two watches are never in step; an event whose pod is seen later is told then."""
    follow = lab.carry()
    eventually(lambda: lab.fake.open_streams("watch=true") == 3)
    fault = lab.fake.answer(500, "GET", r"/pods\?watch", times=1e9)
    lab.fake.cut(r"/pods\?watch")
    eventually(lambda: lab.fake.open_streams(r"/pods\?watch") == 0)
    head = lab.head()
    pod = lab.fake.get("pods", head)
    assert pod is not None
    warning(lab, head, pod["metadata"]["uid"], "FailedMount")
    warning(lab, lab.job, "-", "FailedCreate", "Job")
    eventually(lambda: follow.notices)
    lab.fake.mend(fault)
    eventually(lambda: len(follow.notices) == 2)


def test_a_task_that_is_cancelled_is_no_trouble(lab: Lab) -> None:
    """What becomes of pods while a run is ended is not told."""
    follow = lab.carry()
    head, task = lab.head(), lab.task()
    eventually(lambda: follow.started)
    lab.fake.stuck.update((head, lab.job))
    follow.cancel()
    eventually(lambda: lab.fake.deletions)
    lab.fake.change("pods", task, {"status": TROUBLE["memory"][0]})
    lab.fake.stuck.clear()
    lab.fake.end_container(head, 143)
    lab.fake.remove("pods", head)
    lab.fake.remove("jobs", lab.job)
    assert follow.end().cancelled
    assert follow.notices == []


def test_a_log_that_was_read_whole_lost_nothing(lab: Lab) -> None:
    """Nothing is said of a pod that goes when all of its log is read, by this worker or one before."""
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *numbered(5))
    lab.fake.end_container(head, 0)
    eventually(lambda: first.chunks)
    eventually(lambda: any(head in key for key in first.place.get("read", ())))
    place = first.place
    first.leave()
    lab.fake.finish_job(lab.job, "Complete", "CompletionsReached", "x")
    lab.fake.remove("pods", head)
    second = lab.carry(place)
    eventually(lambda: second.chunks)
    place = second.place
    second.leave()
    third = lab.carry(place)
    assert third.end().code == 0
    told = (*first.notices, *second.notices, *third.notices)
    assert [notice for notice in told if "lost" in notice.message] == []
