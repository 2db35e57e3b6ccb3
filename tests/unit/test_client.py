"""Why a viewer in the terminal is not served just now, in the service's own words."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
import websocket

from nfctl.client import Client, Refused, Unreachable


class Closing:
    """A socket that the service closes at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv_data(self) -> tuple[int, bytes]:
        return websocket.ABNF.OPCODE_CLOSE, self._data

    def close(self) -> None:
        """Nothing to let go of."""


def refuse(*_: Any, **__: Any) -> Any:
    raise websocket.WebSocketBadStatusException("Handshake status %d %s", 503)


def closing(data: bytes) -> Callable[..., Any]:
    return lambda *_, **__: Closing(data)


def redis_is_away(*_: Any, **__: Any) -> Any:
    raise Unreachable("Redis does not answer.")


def bad_gateway(*_: Any, **__: Any) -> Any:
    raise Refused("The way there is broken.", passing=True)


@pytest.mark.parametrize(
    ("connect", "call", "why"),
    [
        (closing(b"\x03\xf5Too many sockets are open."), None, "Too many sockets are open."),
        (closing(b""), None, "The service does not answer."),
        (refuse, lambda *_: {}, "The service takes no more viewers just now."),
        (refuse, redis_is_away, "Redis does not answer."),
        (refuse, bad_gateway, "The way there is broken."),
    ],
)
@pytest.mark.usefixtures("ten_tries")
def test_it_is_told_why(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Any], call: Callable[..., Any] | None, why: str
) -> None:
    """Once, after some tries."""
    client = Client("http://127.0.0.1:1", None)
    told: list[str] = []
    monkeypatch.setattr(websocket, "create_connection", connect)
    monkeypatch.setattr(client, "call", call)
    with pytest.raises(TimeoutError):
        next(client.follow("run-20260131-000000-abcdef12", away=told.append))
    assert told == [why]


class Saying(Closing):
    """A socket that says something first."""

    def __init__(self, frames: list[dict[str, Any]], data: bytes) -> None:
        super().__init__(data)
        self._frames = iter(frames)

    def recv_data(self) -> tuple[int, bytes]:
        for frame in self._frames:
            return websocket.ABNF.OPCODE_TEXT, orjson.dumps(frame)
        return super().recv_data()


def _event(number: int | None, kind: str = "log", **data: Any) -> dict[str, Any]:
    return {"type": kind, "id": number, "data": data}


@pytest.mark.parametrize("way", ["closed", "greeted", "ended"])
def test_what_the_service_has_lost_is_told_anew(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """It says so as it closes, is back with fewer events than were seen, or with another end than that."""
    lost = b"\x03\xf5Redis has lost its newest events. Connect again with since=0."
    says = iter(
        [
            Saying([_event(None, last_id=2), _event(1), _event(2)], lost if way == "closed" else b""),
            *([Saying([_event(None, last_id=1, status="running")], b"")] if way == "greeted" else []),
            *([Saying([_event(None, last_id=2, status="failed")], b"")] if way == "ended" else []),
            Saying([_event(None, last_id=1), _event(1), _event(2, "complete")], b""),
        ]
    )
    asked: list[str] = []

    def connect(url: str, **_: Any) -> Saying:
        asked.append(url.partition("since=")[2])
        return next(says)

    monkeypatch.setattr(websocket, "create_connection", connect)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    told: list[str] = []
    client = Client("http://127.0.0.1:1", None)
    frames = list(client.follow("run-20260131-000000-abcdef12", away=told.append))
    assert [frame["id"] for frame in frames if frame["id"]] == [1, 2, 1, 2]
    assert asked == (["0", "0"] if way == "closed" else ["0", "2", "0"])
    assert told == ["Redis has lost its newest events, so all that is kept comes again."]


@pytest.mark.parametrize(("status", "passing"), [(429, True), (502, True), (500, True), (404, False), (422, False)])
def test_what_may_pass_is_told_apart(monkeypatch: pytest.MonkeyPatch, status: int, passing: bool) -> None:
    """Whoever follows tries again after the one, and not after the other."""
    client = Client("http://127.0.0.1:1", None)
    answer = httpx.Response(status, json={"detail": "No."}, request=httpx.Request("GET", client.url))
    monkeypatch.setattr(client._http, "request", lambda *_, **__: answer)
    with pytest.raises(Refused, match=r"No\.") as raised:
        client.call("GET", "/active")
    assert raised.value.passing is passing
