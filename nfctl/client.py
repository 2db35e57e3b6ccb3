"""Talks to a running service: calls its API and follows its events, through any loss of the connection."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import websocket

from shared.events import EventType
from shared.runs import RunStatus

API = "/api/v1/pipeline"
_RECONNECT_SECONDS = 1.0
_SILENCE_SECONDS = 60.0
_AWAY_AFTER = 3
_SILENT = "The service does not answer."
_ANEW = "Redis has lost its newest events, so all that is kept comes again."
_PAGE = 100
_CODE_BYTES = 2  # of a Close frame: RFC 6455, section 5.5.1


class Refused(Exception):
    """The service said no; the message is its own. `passing` if it may say yes in a moment."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Unreachable(Exception):
    """No service answers at that address."""


class _Closed(Exception):
    """The service has closed the socket; its own words, if it had any."""


class _Lost(Exception):
    """The service has lost events that were seen here already, so their ids mean others now."""


def _without(greeting: dict[str, Any], since: int) -> bool:
    """Whether the service is back without that event: its run goes on, or has even ended, before it was there."""
    last_id: int = greeting.get("last_id", since + 1)
    return last_id < since or (0 < since == last_id and RunStatus(greeting["status"]).final)


class Client:
    """One service, by its address and perhaps a token."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=self._headers, timeout=30)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON answer of a call under the API. Raises Refused or Unreachable."""
        return self._answer(method, path, **arguments).json()

    def text(self, path: str) -> str:
        """The text answer of a GET under the API. Raises Refused or Unreachable."""
        return self._answer("GET", path).text

    def newest_lines(self, run_id: str, lines: int) -> tuple[int, int]:
        """Where so many of the newest kept lines of a run begin: after which event, and how many lines of the next one.

        Raises Refused or Unreachable.
        """
        path = f"/runs/{run_id}/events"
        before, found = self.call("GET", path, params={"limit": 1})["last_id"] + 1, 0
        while page := self.call("GET", path, params={"before": before, "limit": _PAGE})["events"]:
            for event in reversed(page):
                before = event["id"]
                found += len(event["data"]["lines"]) if event["type"] == EventType.LOG else 0
                if found >= lines:
                    return before - 1, found - lines
        return 0, 0

    def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a run. Raises Refused or Unreachable."""
        answer: dict[str, Any] = self.call("POST", "/run", json=dict(request))
        return answer

    def follow(
        self, run_id: str, since: int = 0, *, away: Callable[[str], None] = lambda _: None
    ) -> Iterator[dict[str, Any]]:
        """Each event of a run after `since`, once and in order, up to `complete`; reconnects as often as it takes.

        `away` is told why, once each time that coming back does not work at once. When the service has lost events
        that were seen here, it is told that, and all that is kept comes again, from the first.
        """
        failures = 0
        while True:
            why = _SILENT
            try:
                for number, frame in enumerate(self._frames(run_id, since)):
                    failures = 0 if number else failures  # a greeting alone is no success
                    if frame["id"] is not None:
                        since = frame["id"]
                    yield frame
                    if frame["type"] == "complete":
                        return
            except websocket.WebSocketBadStatusException:
                # The handshake does not tell why; a plain call does, and raises if it will never work.
                why = self._why(run_id)
            except _Closed as closed:
                why = str(closed)
            except _Lost:
                since = failures = 0
                away(_ANEW)
            except (websocket.WebSocketException, OSError):
                pass
            failures += 1
            if failures == _AWAY_AFTER:
                away(why)
            time.sleep(_RECONNECT_SECONDS)

    def _frames(self, run_id: str, since: int) -> Iterator[dict[str, Any]]:
        url = f"{self.url.replace('http', 'ws', 1)}{API}/stream?{urlencode({'run_id': run_id, 'since': since})}"
        # After so long without even a keep-alive the connection is dead.
        opened = websocket.create_connection(
            url,
            timeout=_SILENCE_SECONDS,
            header=self._headers,
            skip_utf8_validation=True,  # orjson looks at it too, and much faster
        )
        with closing(opened) as socket:
            while True:
                opcode, data = socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    reason = data[_CODE_BYTES:].decode(errors="replace")
                    raise _Lost if "since=0" in reason else _Closed(reason or _SILENT)
                frame = orjson.loads(data)
                if frame["id"] is None and _without(frame["data"], since):
                    raise _Lost
                yield frame

    def _why(self, run_id: str) -> str:
        try:
            self.call("GET", f"/runs/{run_id}")
        except Unreachable as error:
            return str(error)
        except Refused as error:
            if not error.passing:
                raise
            return str(error)
        return "The service takes no more viewers just now."

    def _answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, API + path, **arguments)
        except httpx.UnsupportedProtocol as error:
            raise Refused(f"{self.url} is no address of a service: one looks like http://127.0.0.1:8000.") from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"No service answers at {self.url} ({error}). Start one with `nfctl up`, or set NFCTL_URL."
            ) from error
        if response.is_success:
            return response
        if response.status_code == 503:
            raise Unreachable(_detail(response))
        if response.status_code == 401:
            given = "The token that was given is not one of its own. " if self._headers else ""
            raise Refused(f"The service at {self.url} wants a token. {given}Set NFCTL_TOKEN, or use --token.")
        again = response.headers.get("Retry-After", "")
        when = f" Try again in {again} s." if response.status_code == 429 and again.isdigit() else ""
        # Too many calls, or something between here and the service that does not reach it just now.
        raise Refused(_detail(response) + when, passing=response.status_code == 429 or response.status_code >= 500)


def _detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        return f"What answers at {response.url.host}:{response.url.port} is no Nextflow Controller."
