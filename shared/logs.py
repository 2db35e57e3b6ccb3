"""The service's own logs: one JSON object a line on stderr, with a stable `action` and the `run_id`."""

import logging
import sys

import orjson

from shared import times
from shared.redaction import without_url_secrets


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": times.to_text(times.now()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_url_secrets(record.getMessage()),
        }
        for name in ("action", "run_id"):
            if hasattr(record, name):
                entry[name] = getattr(record, name)
        if record.exc_info:
            entry["traceback"] = without_url_secrets(self.formatException(record.exc_info))
        return orjson.dumps(entry).decode()


def configure_logging() -> None:
    """Send all logs of this process to stderr as JSON lines; again: no change."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, _JsonLines) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # What becomes of a run, the service tells itself.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
