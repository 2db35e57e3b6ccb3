"""Names of the keys in Redis. `docs/redis.md` tells what each holds and what bounds it."""

PREFIX = "nfc:"
ACTIVE = f"{PREFIX}active"
LATEST = f"{PREFIX}latest"
QUEUE = f"{PREFIX}queue"
HISTORY = f"{PREFIX}history"
ENDED = f"{PREFIX}ended"
TOTALS = f"{PREFIX}totals"
VIEWERS = f"{PREFIX}viewers"
STRAYS = f"{PREFIX}strays"
HEALTH = f"{PREFIX}health"
CHANNEL = f"{PREFIX}events"
CELERY_PREFIX = f"{PREFIX}celery:"
LIMITS_PREFIX = f"{PREFIX}limits"


def run(run_id: str) -> str:
    """Hash: the record, its version, the fence, counters and the kept place in the log."""
    return f"{PREFIX}run:{run_id}"


def events(run_id: str) -> str:
    """Stream: the kept events."""
    return f"{PREFIX}run:{run_id}:events"


def tasks(run_id: str) -> str:
    """Hash: Nextflow's tasks by the order they were first seen."""
    return f"{PREFIX}run:{run_id}:tasks"


def lease(run_id: str) -> str:
    """String with a short life: who supervises the run now."""
    return f"{PREFIX}run:{run_id}:lease"


def idempotency(key_digest: str) -> str:
    """Hash with a day's life: the run that an Idempotency-Key stands for."""
    return f"{PREFIX}idempotency:{key_digest}"


def ticket(ticket_digest: str) -> str:
    """String with half a minute's life: a socket ticket not yet used."""
    return f"{PREFIX}ticket:{ticket_digest}"
