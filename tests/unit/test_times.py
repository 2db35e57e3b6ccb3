"""Times as clients see them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import times


@given(st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_text_reads_back_to_the_millisecond(time: datetime) -> None:
    """Any time survives text but for what is finer than a millisecond, which is cut and never rounded up."""
    back = times.from_text(times.to_text(time))
    assert timedelta(0) <= time - back < timedelta(milliseconds=1)


def test_text_is_rfc_3339_in_utc() -> None:
    """A time of another zone is written in UTC, with milliseconds and a Z."""
    there = datetime(2026, 1, 31, 1, 2, 3, 999_999, timezone(timedelta(hours=-8)))
    assert times.to_text(there) == "2026-01-31T09:02:03.999Z"


@pytest.mark.parametrize(
    ("text", "hour"), [("2026-01-31T10:00:00Z", 10), ("2026-01-31T10:00:00+02:00", 8), ("2026-01-31T10:00:00", 10)]
)
def test_any_zone_is_read_and_none_means_utc(text: str, hour: int) -> None:
    """A time is read with its zone, and as UTC when it has none."""
    assert times.from_text(text) == datetime(2026, 1, 31, hour, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "10:00"])
def test_what_is_no_time_raises(text: str) -> None:
    """Text that is no time raises ValueError."""
    with pytest.raises(ValueError, match=r".*"):
        times.from_text(text)


def test_the_present_is_aware() -> None:
    """`now` is in UTC, and says so."""
    assert times.now().tzinfo is UTC


def test_milliseconds_since_1970_become_a_time() -> None:
    """Trace rows tell times as whole milliseconds."""
    assert times.to_text(times.from_epoch_ms(1_795_412_040_470)) == "2026-11-23T05:34:00.470Z"
