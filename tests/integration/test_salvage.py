"""Lines that went with their pod before they were read: they come from the claim, or are told as lost."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from fake_kubernetes import Ended
from kube_lab import Follow, Lab, eventually, numbered

from worker.kube import salvage
from worker.kube.manifest import CONTAINER, LOG_CONTAINER

LINES = numbered(105)


def left_behind(lab: Lab, *lines: str) -> Mapping[str, Any]:
    """A run whose worker leaves after these lines, and whose Job and pod are deleted then; returns the place."""
    first = lab.carry()
    head = lab.head()
    eventually(lambda: first.started)
    lab.fake.write(head, *lines)
    eventually(lambda: first.texts == [line.removesuffix("\r") for line in lines])
    place = first.place
    first.leave()
    lab.fake.write(head, *LINES[len(lines) :])
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", head)
    return place


def lost(*follows: Follow) -> list[str]:
    return [notice.message for follow in follows for notice in follow.notices if "may be lost" in notice.message]


@pytest.mark.parametrize("read", [0, 1, 5, 40])
def test_they_come_from_the_claim(lab: Lab, read: int) -> None:
    """Each once and in order, as if they had been read from their own pod, and nothing is left of what read them."""
    place = left_behind(lab, *LINES[:read])
    second = lab.carry(place)
    assert lab.print_log(*LINES) == max(read - 15, 0)
    second.end()
    assert second.texts == LINES[read:]
    assert {record.container for record in second.records} == {CONTAINER}
    assert lost(second) == []
    assert [notice.level for notice in second.notices if "the claim has" in notice.message] == ["warning"]
    assert lab.fake.all("jobs") == lab.fake.all("pods") == []


def test_lines_as_other_systems_end_them(lab: Lab) -> None:
    """The container runtime takes a carriage return from a line's end: a place is a number of lines, not of bytes."""
    ended_so = [f"{line}\r" for line in LINES]
    place = left_behind(lab, *ended_so[:40])
    second = lab.carry(place)
    lab.print_log(*ended_so)
    second.end()
    assert second.texts == LINES[40:]
    assert lost(second) == []


def test_a_log_that_could_not_be_read_in_time(lab: Lab) -> None:
    """The run's own worker was there all the time, but the API server gave no log until the pod was gone."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.write(head, *LINES[:5])
    eventually(lambda: follow.texts == LINES[:5])
    fault = lab.fake.answer(503, pattern=f"/{head}/log", times=1e9)
    lab.fake.cut("/log")
    eventually(lambda: not lab.fake.open_streams("/log"))
    lab.fake.write(head, *LINES[5:])
    lab.fake.end_container(head, 0)
    lab.fake.finish_job(lab.job, "Complete", "CompletionsReached", "x")
    lab.fake.remove("pods", head)
    lab.fake.mend(fault)
    lab.print_log(*LINES)
    assert follow.end().code == 0
    assert follow.texts == LINES
    assert lost(follow) == []


def test_another_worker_goes_on_in_the_middle_of_it(lab: Lab) -> None:
    """From wherever one has come to in what is read from the claim, the next one reads the rest."""
    second = lab.carry(left_behind(lab, *LINES[:20]))
    lab.print_log(*LINES[:60], end=False)
    eventually(lambda: second.texts == LINES[20:60])
    place = second.place
    second.leave()
    third = lab.carry(place)
    assert lab.print_log(*LINES) == 45
    third.end()
    assert third.texts == LINES[60:]
    assert lost(second, third) == []


def test_a_stream_that_is_cut_again_and_again(lab: Lab) -> None:
    """The log of what reads the claim is followed like any other."""
    place = left_behind(lab, *LINES[:5])
    lab.fake.log_cuts = [(size, Ended) for size in (200, 900, 300, 700, 1500, 400, 2000)]
    second = lab.carry(place)
    lab.print_log(*LINES)
    second.end()
    assert second.texts == LINES[5:]
    assert lost(second) == []


def test_lines_that_nobody_knows_are_not_guessed_at(lab: Lab) -> None:
    """When the claim has something else where the last lines should be, nothing is taken from it."""
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    lab.print_log(*numbered(105, 1001))
    second.end()
    assert second.texts == []
    assert len(lost(second)) == 1


def test_a_claim_without_the_log(lab: Lab) -> None:
    """What had been read is more than is there."""
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    lab.print_log()
    second.end()
    assert second.texts == []
    assert len(lost(second)) == 1


def test_a_log_with_a_hole(lab: Lab) -> None:
    """Lines before were lost to a rotation, so that nobody knows how many there were: the claim is not asked."""
    place = left_behind(lab, *LINES[:5])
    logs = {key: {**cursor, "gap": True} for key, cursor in place["logs"].items()}
    second = lab.carry({**place, "logs": logs})
    second.end()
    assert len(lost(second)) == 1
    assert lab.fake.all("jobs") == []


@pytest.mark.parametrize("code", [1, 137])
def test_a_reader_that_fails(lab: Lab, code: int) -> None:
    """What it gave is kept, and that there may be more is told."""
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    lab.print_log(*LINES[:50], code=code)
    second.end()
    assert second.texts == LINES[5:50]
    assert len(lost(second)) == 1


def test_no_node_takes_the_reader(lab: Lab) -> None:
    """After a while the run ends without those lines, and says so once, whoever ends it."""
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    second.end()
    third = lab.carry(second.place)
    third.end()
    assert len(lost(second, third)) == 1
    assert lab.fake.all("jobs") == []


def test_a_reader_that_is_refused_for_a_while(lab: Lab) -> None:
    """A quota that is full now may have room in a moment."""
    place = left_behind(lab, *LINES[:5])
    lab.fake.answer(403, pattern=r"/jobs$", times=5)
    second = lab.carry(place)
    lab.print_log(*LINES)
    second.end()
    assert second.texts == LINES[5:]


def test_who_cancels_does_not_wait_long(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No node takes the reader, and somebody wants the run's end."""
    monkeypatch.setattr(salvage, "_PATIENCE_SECONDS", 1e9)
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    eventually(lambda: lab.fake.all("jobs"))
    second.cancel()
    second.end()
    assert len(lost(second)) == 1


def test_a_run_that_nobody_ever_saw_at_work(lab: Lab) -> None:
    """Its worker was killed as it let the Job go, and all is over when the next one comes: the claim has its log."""
    first = lab.carry()
    eventually(lab.job_at_work)
    first.leave()
    lab.fake.remove("jobs", lab.job)
    second = lab.carry()
    assert lab.print_log(*LINES) == 0
    second.end()
    assert second.texts == LINES
    assert lost(second) == []


def test_a_worker_that_stops_leaves_the_rest_to_the_next(lab: Lab) -> None:
    """Nothing is told as lost by one that only has to go."""
    place = left_behind(lab, *LINES[:5])
    second = lab.carry(place)
    [before] = eventually(lambda: lab.fake.all("jobs"))
    second.leave()
    third = lab.carry(second.place)
    eventually(lambda: [job for job in lab.fake.all("jobs") if job["metadata"]["uid"] != before["metadata"]["uid"]])
    lab.print_log(*LINES)
    third.end()
    assert third.texts == LINES[5:]
    assert lost(second, third) == []


def test_bytes_that_are_no_text(lab: Lab) -> None:
    """They are told as replaced, and what is known of the line before them is enough."""
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, "one", b"\xff\xfe")
    eventually(lambda: len(first.texts) == 2)
    place = first.place
    first.leave()
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", head)
    second = lab.carry(place)
    lab.print_log("one", b"\xff\xfe", "three")
    second.end()
    assert second.texts == ["three"]


@pytest.mark.parametrize("after", [numbered(60), ["waiting"] * 60])
def test_lines_that_came_in_parts(lab: Lab, after: Sequence[str]) -> None:
    """A line that was too long for one, and equal lines behind it: the place is the right one all the same."""
    lines = ["x" * 600_000, *after]
    first = lab.carry()
    head = lab.head()
    lab.fake.write(head, *lines[:31])
    eventually(lambda: len(first.texts) == 33)
    place = first.place
    first.leave()
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", head)
    second = lab.carry(place)
    lab.print_log(*lines)
    second.end()
    assert second.texts == lines[31:]
    assert lost(first, second) == []


def test_a_reader_that_hangs_is_not_waited_for_long(lab: Lab) -> None:
    """Its node is lost, or the claim does not answer: what came is kept, and the run ends although its pod stays."""
    second = lab.carry(left_behind(lab, *LINES[:5]))
    lab.print_log(*LINES[:20], end=False, stuck=True)
    second.end(30)
    assert second.texts == LINES[5:20]
    assert len(lost(second)) == 1


def test_a_reader_whose_own_log_is_turned_over(lab: Lab) -> None:
    """What it printed first cannot be had, so that nobody knows the place: nothing is taken, and that is told."""
    second = lab.carry(left_behind(lab))
    fault = lab.fake.answer(503, pattern="-log-[0-9a-f]+-x/log", times=1e9)
    lab.print_log(*LINES[:60], end=False)
    [pod] = [pod["metadata"]["name"] for pod in lab.fake.all("pods")]
    lab.fake.rotate(pod, LOG_CONTAINER)
    lab.fake.write(pod, *LINES[60:], container=LOG_CONTAINER)
    lab.fake.end_container(pod, container=LOG_CONTAINER)
    lab.fake.mend(fault)
    second.end()
    assert second.texts == []
    assert len(lost(second)) == 1


def test_a_reader_that_is_evicted_too(lab: Lab) -> None:
    """The next one goes on where it came to."""
    second = lab.carry(left_behind(lab, *LINES[:5]))
    lab.print_log(*LINES[:30], end=False)
    eventually(lambda: second.texts == LINES[5:30])
    [pod] = [pod["metadata"]["name"] for pod in lab.fake.all("pods")]
    lab.fake.end_container(pod, 137, container=LOG_CONTAINER)
    lab.fake.remove("pods", pod)
    lab.print_log(*LINES)
    second.end()
    assert second.texts == LINES[5:]
    assert lost(second) == []


@pytest.mark.parametrize("seen", [False, True])
def test_a_cancel_while_nobody_could_see_the_pod(lab: Lab, seen: bool) -> None:
    """The API server was away while the head printed and went, and is back with nothing left of it."""
    follow = lab.carry()
    eventually(lab.job_at_work)
    eventually(lambda: follow.chunks)
    if seen:
        lab.waiting_head("ContainerCreating")
    time.sleep(0.5)
    fault = lab.fake.answer(503, times=1e9)
    lab.fake.cut(".")
    follow.cancel()
    lab.fake.remove("jobs", lab.job)
    if seen:
        lab.fake.remove("pods", "head")
    lab.fake.expire()
    lab.fake.mend(fault)
    lab.print_log(*LINES)
    outcome = follow.end()
    assert follow.texts == LINES
    assert outcome.cancelled
    assert "before Nextflow started" not in str(outcome.reason)


def test_a_run_that_was_seen_never_to_begin(lab: Lab) -> None:
    """Its image cannot be had until its deadline: nothing is looked for that cannot be there."""
    follow = lab.carry()
    lab.waiting_head("ImagePullBackOff")
    eventually(lambda: any("image" in notice.message for notice in follow.notices))
    lab.fake.change("jobs", lab.job, {"status": {"failed": 1}})
    lab.fake.finish_job(lab.job, "Failed", "DeadlineExceeded")
    lab.fake.remove("pods", "head")
    follow.end()
    assert lab.fake.count("POST", "/jobs") == 1
    assert lost(follow) == []


def test_a_run_that_was_never_let_go(lab: Lab) -> None:
    """Its worker was killed before that, and it is cancelled: nothing of it can have been at work."""
    first = lab.carry()
    lab.fake.answer(503, "PATCH", times=1e9)
    eventually(lambda: lab.fake.count("PATCH"))
    first.leave()
    second = lab.carry(cancelled=lambda: True)
    outcome = second.end()
    assert outcome.reason == "Cancelled before Nextflow started."
    assert lab.fake.count("POST", "/jobs") == 1
    assert lost(second) == []


def test_a_log_that_was_turned_over_before_anybody_read_it(lab: Lab) -> None:
    """It begins long after its container did: that lines before are missing is told, and where they are not guessed."""
    head = "head"
    first = lab.carry()
    eventually(lab.job_at_work)
    first.leave()
    lab.head(head)
    lab.fake.write(head, *LINES[:40], step=4 * 10**9)
    lab.fake.rotate(head)
    lab.fake.write(head, *LINES[40:60])
    second = lab.carry()
    eventually(lambda: second.texts == LINES[40:60])
    [told] = [notice.message for notice in second.notices if "missing" in notice.message]
    assert "may be missing" in told
    place = second.place
    second.leave()
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", head)
    third = lab.carry(place)
    third.end()
    assert len(lost(third)) == 1


def test_a_head_that_was_last_seen_before_it_began(lab: Lab) -> None:
    """The watch broke off while its container was made, and when it is back all is over."""
    follow = lab.carry()
    lab.waiting_head("ContainerCreating")
    eventually(lambda: follow.chunks)
    time.sleep(0.5)
    fault = lab.fake.answer(503, times=1e9)
    lab.fake.cut(".")
    lab.fake.remove("jobs", lab.job)
    lab.fake.remove("pods", "head")
    lab.fake.expire()
    lab.fake.mend(fault)
    lab.print_log(*LINES)
    follow.end()
    assert follow.texts == LINES
    assert lost(follow) == []


def test_a_cancelled_run_that_nobody_saw_at_work(lab: Lab) -> None:
    """Its worker was killed as it let the Job go, all is over, and somebody cancels it before the next one comes."""
    first = lab.carry()
    eventually(lab.job_at_work)
    first.leave()
    lab.fake.remove("jobs", lab.job)
    second = lab.carry(cancelled=lambda: True)
    lab.print_log(*LINES)
    outcome = second.end()
    assert second.texts == LINES
    assert outcome.cancelled
    assert "before Nextflow started" not in str(outcome.reason)


@pytest.mark.parametrize("pending", [False, True])
def test_a_cancel_of_what_never_began_asks_nothing(lab: Lab, pending: bool) -> None:
    """Another worker takes a run over whose pod cannot be made, or waits; the watch lists again; it is cancelled."""
    first = lab.carry()
    eventually(lab.job_at_work)
    first.leave()
    if pending:
        lab.waiting_head()
    second = lab.carry()
    eventually(lambda: lab.fake.open_streams("watch|pods"))
    time.sleep(0.3)
    if pending:
        lab.fake.expire()
        lab.fake.cut(".")
        time.sleep(0.5)
    second.cancel()
    assert second.end().reason == "Cancelled before Nextflow started."
    assert lab.fake.count("POST", "/jobs") == 1
    assert lost(second) == []


def test_a_quiet_container_beside_nextflow_has_lost_nothing(lab: Lab) -> None:
    """It says its first word long after it began."""
    follow = lab.carry()
    head = lab.head()
    lab.fake.start_container(head, "proxy")
    lab.fake.write(head, "one")
    lab.fake.write(head, "drained", container="proxy", step=200 * 10**9)
    lab.fake.end_container(head, container="proxy")
    lab.fake.finish(head, lab.job)
    assert follow.end().code == 0
    assert [notice.message for notice in follow.notices if "missing" in notice.message] == []
