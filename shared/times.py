"""Times as clients see them: RFC 3339, UTC, milliseconds."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present, aware and in UTC."""
    return datetime.now(UTC)


def to_text(time: datetime) -> str:
    """`2026-01-31T23:59:59.123Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def from_text(text: str) -> datetime:
    """Read any RFC 3339 time; one without a zone is taken as UTC. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def from_epoch_ms(milliseconds: int) -> datetime:
    """The time that many milliseconds after 1970 began. Raises ValueError or OverflowError."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
