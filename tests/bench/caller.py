"""A caller of the API: one kept connection, and the seconds that each call takes."""

import http.client
import time
from collections.abc import Mapping
from typing import Any

import orjson
from bench.processes import TrialFailed

API = "/api/v1/pipeline"
_JSON = {"Content-Type": "application/json"}


class Caller:
    """Speaks plain HTTP, so that little of what is measured is the client.

    Every call raises TrialFailed when it is not answered well.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> float:
        """The seconds from asking to the last byte of the answer."""
        return self._timed("GET", path, None, {})

    def post(self, path: str, what: Mapping[str, Any]) -> float:
        """The same of a POST of JSON."""
        return self._timed("POST", path, orjson.dumps(what), _JSON)

    def close(self) -> None:
        """Hang up; the next call connects again."""
        self._connection.close()

    def _timed(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> float:
        began = time.perf_counter()
        try:
            self._connection.request(method, path, body, dict(headers))
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TrialFailed(f"{method} {path}: {error!r}") from error
        seconds = time.perf_counter() - began
        if answer.status >= 400:
            raise TrialFailed(f"{method} {path}: {answer.status} {said[:300]!r}")
        return seconds
