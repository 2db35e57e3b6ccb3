"""What the threads that carry a run say, as whoever follows it hears it."""

from worker.cluster import Notice, Outcome, Record
from worker.kube.follower import Gap, Said, Source
from worker.kube.telling import Telling

HEAD = Source("head", "nextflow")
PIECES = 200


def said(number: int, gap: Gap | None = None, *, more: str = "") -> Said:
    record = Record("2026-01-31T00:00:00.000000000Z", "all", f"line {number}{more}", HEAD.pod, HEAD.container)
    return Said(HEAD, [record], {"equal": number}, gap)


def test_pieces_that_follow_closely_share_a_chunk() -> None:
    """An API server may send each line by itself: a run that prints at once is not held up by that."""
    telling = Telling({})
    for number in range(PIECES):
        telling.say(said(number))
    telling.say(Outcome(0))
    [chunk] = telling.chunks()
    assert [record.text for record in chunk.records] == [f"line {number}" for number in range(PIECES)]
    assert chunk.place["logs"] == {HEAD.key: {"equal": PIECES - 1}}
    assert telling.outcome == Outcome(0)


def test_a_chunk_of_long_lines_is_bounded() -> None:
    """A chunk becomes one batch, which must not be of any size."""
    telling = Telling({})
    for number in range(PIECES):
        telling.say(said(number, more="x" * 100_000))
    telling.say(Outcome(0))
    sizes = [sum(len(record.text) for record in chunk.records) for chunk in telling.chunks()]
    assert max(sizes) < 1_200_000
    assert sum(sizes) > PIECES * 100_000


def test_a_gap_is_told_with_the_lines_after_it() -> None:
    """That lines are missing is said as far as it is known, and any other notice once."""
    trouble = Notice("trouble", "warning", "Something is amiss.", "kubernetes")
    telling = Telling({})
    for item in (said(1, Gap.LOST), trouble, trouble, said(2, Gap.LATE), Outcome(0)):
        telling.say(item)
    messages = [notice.message for chunk in telling.chunks() for notice in chunk.notices]
    lost, amiss, late = messages
    assert "are missing" in lost
    assert amiss == trouble.message
    assert "may be missing" in late
