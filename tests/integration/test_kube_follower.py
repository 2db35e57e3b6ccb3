"""The log of a container, read over HTTP from a kubelet that breaks off: each line once, in order, and none lost."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fake_kubernetes import Ended, Json, Reset
from kube_lab import Lab, eventually, new_api, numbered

from worker.cluster import Record
from worker.kube import follower as follower_module
from worker.kube.follower import Follower, Said, Source
from worker.kube.tail import LONGEST_LINE

POD = "head"


class Reader:
    """Follows the log of the pod and keeps what it is told."""

    def __init__(self, lab: Lab, cursor: Json | None = None, container: str = "nextflow") -> None:
        self.said: list[Said] = []
        self.api = new_api(lab.fake)
        self.follower = Follower(self.api, "lab", Source(POD, container), cursor, self.said.append)
        self.follower.start()

    @property
    def records(self) -> Sequence[Record]:
        return [record for said in list(self.said) for record in said.records]

    @property
    def texts(self) -> Sequence[str]:
        return [record.text for record in self.records]

    @property
    def gaps(self) -> int:
        return sum(said.gap is not None for said in self.said)

    def read_to_the_end(self) -> Sequence[str]:
        """All it was told, once the container has ended and all is read."""
        self.follower.container_ended()
        eventually(lambda: self.follower.done)
        return self.texts


@pytest.fixture
def read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reader]]:
    """Begins to read the log of a pod that runs; readers are stopped at the end."""
    monkeypatch.setattr(follower_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(follower_module, "_LONGEST_PAUSE", 0.01)
    lab.fake.start_pod(POD, {})
    readers: list[Reader] = []

    def begin(cursor: Json | None = None, **more: Any) -> Reader:
        readers.append(Reader(lab, cursor, **more))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.follower.stop()
        reader.api.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_log_cut_fifty_times(lab: Lab, read: Callable[..., Reader], seed: int) -> None:
    """Wherever a stream is cut, in a line or between two, cleanly or not, each line is told once and in order."""
    chance = random.Random(seed)
    lab.fake.log_cuts = [(chance.randint(1, 3000), chance.choice([Reset, Ended])) for _ in range(50)]
    reader = read()
    for first in range(1, 1001, 100):
        lab.fake.write(POD, *numbered(100, first), step=chance.choice([0, 1, 10**6, 10**9]))
    lab.fake.end_container(POD)
    assert reader.read_to_the_end() == numbered(1000)
    assert reader.gaps == 0
    assert lab.fake.log_cuts == []


@pytest.mark.parametrize("how", [Reset, Ended])
def test_a_log_cut_while_it_is_written(lab: Lab, read: Callable[..., Reader], how: type[Exception]) -> None:
    """Streams that end on demand, with more to come, are followed again."""
    reader = read()
    for first in range(1, 201, 10):
        lab.fake.write(POD, *numbered(10, first))
        if first % 30 == 1:
            lab.fake.cut("/log", how)
        eventually(lambda first=first: len(reader.texts) >= first)  # type: ignore[misc]
    lab.fake.end_container(POD)
    assert reader.read_to_the_end() == numbered(200)


def test_equal_lines_of_one_time(lab: Lab, read: Callable[..., Reader]) -> None:
    """Lines that cannot be told apart are counted."""
    lab.fake.log_cuts = [(size, Ended) for size in range(40, 2000, 200)]
    reader = read()
    lab.fake.write(POD, *["again"] * 100, step=0)
    lab.fake.end_container(POD)
    assert reader.read_to_the_end() == ["again"] * 100


@pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 40_000, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE + 7])
def test_a_long_line_that_is_cut(lab: Lab, read: Callable[..., Reader], size: int) -> None:
    """A line that the runtime wrote in pieces is one line; a very long one comes in parts of a known length."""
    lab.fake.log_cuts = [(size // 2, Reset), (size - 10, Ended), (20_000, Ended)]
    long = "".join(random.Random(size).choices("abcdefgh", k=size))
    reader = read()
    lab.fake.write(POD, "before", long, "after")
    lab.fake.end_container(POD)
    parts = [long[start : start + LONGEST_LINE] for start in range(0, size, LONGEST_LINE)]
    assert reader.read_to_the_end() == ["before", *parts, "after"]
    assert reader.gaps == 0


@pytest.mark.parametrize(
    "cuts", [[], [(40, Ended)], [(40, Reset)], [(75, Ended), (80, Ended)], [(70, Ended), (71, Reset), (72, Ended)]]
)
def test_a_last_line_without_a_newline(lab: Lab, read: Callable[..., Reader], cuts: list[tuple[int, Any]]) -> None:
    """It is told once, whole, also when the stream broke off in the midst of it."""
    lab.fake.write(POD, *numbered(2), "the last words", whole=False)
    lab.fake.end_container(POD)
    lab.fake.log_cuts = cuts
    reader = read()
    assert reader.read_to_the_end() == [*numbered(2), "the last words"]
    assert reader.gaps == 0


@pytest.mark.parametrize("cut", range(5, 400, 37))
def test_the_last_reading_is_cut_too(lab: Lab, read: Callable[..., Reader], cut: int) -> None:
    """A clean end of a stream is not the end of the log, not even after the container has ended."""
    lab.fake.write(POD, *numbered(20))
    lab.fake.end_container(POD)
    lab.fake.log_cuts = [(cut, Ended), (cut + 80, Ended)]
    reader = read()
    reader.follower.container_ended()
    assert reader.read_to_the_end() == numbered(20)


def test_no_output_at_all(lab: Lab, read: Callable[..., Reader]) -> None:
    """A container that says nothing is read to its end."""
    reader = read()
    eventually(lambda: lab.fake.open_streams("/log"))
    lab.fake.end_container(POD)
    assert reader.read_to_the_end() == []


def test_bytes_that_are_no_text(lab: Lab, read: Callable[..., Reader]) -> None:
    """What is no UTF-8 is shown as such, and empty lines are lines."""
    lab.fake.write(POD, b"\xff\xfe", b"", b"a\rb", "märz")
    lab.fake.end_container(POD)
    assert read().read_to_the_end() == ["\ufffd\ufffd", "", "a\rb", "märz"]


def test_a_kubelet_that_starts_anew(lab: Lab, read: Callable[..., Reader]) -> None:
    """For a moment it knows neither pod nor container; nothing is lost by that."""
    lab.fake.answer(404, pattern="/log", times=3)
    lab.fake.answer(400, pattern="/log", times=3)
    reader = read()
    lab.fake.write(POD, *numbered(3))
    eventually(lambda: reader.texts == numbered(3))


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_log_that_is_refused_for_a_while(lab: Lab, read: Callable[..., Reader], status: int) -> None:
    """The container has ended meanwhile; its log is read all the same."""
    lab.fake.answer(status, pattern="/log", times=4)
    lab.fake.write(POD, *numbered(3))
    lab.fake.end_container(POD)
    assert read().read_to_the_end() == numbered(3)


def test_a_pod_that_is_gone(lab: Lab, read: Callable[..., Reader]) -> None:
    """What was read before it went stays; the rest cannot be had, and nobody waits for it."""
    reader = read()
    lab.fake.write(POD, *numbered(3))
    eventually(lambda: reader.texts == numbered(3))
    lab.fake.remove("pods", POD)
    assert reader.read_to_the_end() == numbered(3)


def test_a_resumed_quiet_log_is_settled(lab: Lab, read: Callable[..., Reader]) -> None:
    """When the old place was rotated away and nothing comes, the silent stream is given up; what is there is told."""
    first = read()
    lab.fake.write(POD, *numbered(3))
    eventually(lambda: first.texts == numbered(3))
    first.follower.stop()
    lab.fake.rotate(POD)
    lab.fake.write(POD, *numbered(2, 10))
    second = read(first.said[-1].cursor)
    eventually(lambda: lab.fake.open_streams("/log"))

    def settled() -> bool:
        second.follower.mind()
        return bool(second.texts)

    eventually(settled)
    assert second.texts == numbered(2, 10)
    assert second.gaps == 1
    lab.fake.write(POD, *numbered(2, 12))
    lab.fake.end_container(POD)
    assert second.read_to_the_end() == numbered(4, 10)
    assert second.gaps == 1


def test_a_rotation_while_nobody_reads(lab: Lab, read: Callable[..., Reader]) -> None:
    """Lines that are gone are told as one gap, and the rest goes on after it."""
    reader = read()
    lab.fake.write(POD, *numbered(10))
    eventually(lambda: len(reader.texts) == 10)
    fault = lab.fake.answer(503, pattern="/log", times=1e9)
    lab.fake.cut("/log")
    eventually(lambda: not lab.fake.open_streams("/log"))
    lab.fake.write(POD, *numbered(10, 11))
    lab.fake.rotate(POD)
    lab.fake.write(POD, *numbered(10, 21))
    lab.fake.mend(fault)
    lab.fake.end_container(POD)
    assert reader.read_to_the_end() == [*numbered(10), *numbered(10, 21)]
    assert reader.gaps == 1


@pytest.mark.parametrize("seed", range(3))
def test_another_goes_on_from_any_place(lab: Lab, read: Callable[..., Reader], seed: int) -> None:
    """From the cursor of each piece on, another reader is told the rest, each line once."""
    chance = random.Random(seed)
    lab.fake.log_cuts = [(chance.randint(100, 900), Ended) for _ in range(10)]
    for _ in range(12):
        lab.fake.write(
            POD, *chance.choices(["a", "b", "", "a longer one"], k=10), step=chance.choice([0, 10**6, 2 * 10**9])
        )
    lab.fake.end_container(POD)
    whole = read()
    texts = whole.read_to_the_end()
    assert len(texts) == 120
    told = 0
    for said in whole.said:
        told += len(said.records)
        assert read(said.cursor).read_to_the_end() == texts[told:]
