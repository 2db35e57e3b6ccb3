"""The WebSocket door: `/api/v1/pipeline/stream`. All refusals happen before the upgrade but one."""

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
from flask import Blueprint, request
from flask_sock import Sock
from gevent.event import Event
from pydantic import BaseModel, ConfigDict, Field
from simple_websocket import ConnectionClosed, Server
from werkzeug.exceptions import BadRequest
from wsproto.frame_protocol import CloseReason

from shared import events, times
from shared.errors import RunNotFound, StoreAway
from shared.events import EventType
from web.hub import TOO_SLOW, Hub, Viewer
from web.outbox import Outbox, Stalled, text_frame
from web.schemas import parse_query
from web.status import snapshot
from web.wiring import Service

_MESSAGES_A_MINUTE = 120
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_PING = b"\x89\x00"  # RFC 6455, section 5.5.2
_log = logging.getLogger(__name__)


class _Greenlet:
    """What simple-websocket needs of a thread, without all that Python's own keeps for each."""

    __slots__ = ("_target", "name")

    def __init__(self, target: Callable[[], None]) -> None:
        self._target = target
        self.name = ""

    def start(self) -> None:
        gevent.spawn(self._target)


# What a client may say is little: the service listens for nothing, so anything large or frequent is a mistake or worse.
OPTIONS = {"max_message_size": 4_096, "thread_class": _Greenlet, "event_class": Event}
"""What simple-websocket is to make its sockets with."""


class StreamQuery(BaseModel):
    """The query of the stream."""

    model_config = ConfigDict(extra="forbid")
    run_id: str | None = Field(None, max_length=128, description="The run to see; without it, whatever is active.")
    since: int | None = Field(
        None,
        ge=0,
        le=2**53,
        description="Send each kept event after this id first; without it, only what comes.",
    )
    ticket: str | None = Field(None, max_length=256, description="From `POST /ticket`, where tokens are needed.")


def sockets(service: Service, hub: Hub) -> Blueprint:
    """The blueprint of the stream."""
    door = Blueprint("sockets", __name__)
    sock = Sock()

    @door.before_request
    def _check_before_the_upgrade() -> None:
        # A frame is encoded once for all viewers, which compression of each connection would undo.
        request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        if request.headers.get("Sec-WebSocket-Version") != "13" or not _KEY.fullmatch(
            request.headers.get("Sec-WebSocket-Key", "")
        ):
            raise BadRequest("This is no handshake of WebSocket version 13 (RFC 6455).")
        query = parse_query(StreamQuery)
        if query.run_id is not None:
            service.store.get(query.run_id)
        hub.notice()

    @sock.route("/api/v1/pipeline/stream", bp=door)  # type: ignore[untyped-decorator]  # flask-sock has no types
    def stream(ws: Server) -> None:
        outbox = Outbox(ws.sock)
        ws.sock = outbox  # type: ignore[assignment]  # it stands in for a socket
        joined = False
        try:
            joined = hub.presence.join()
            if joined:
                _serve(ws, outbox, service, hub)
            else:
                ws.close(CloseReason.TRY_AGAIN_LATER, "Too many sockets are open. Try again later.")
        except (ConnectionClosed, OSError):  # the client went
            pass
        except StoreAway:
            _close(ws, outbox, 1013, "Redis is away. Connect again in a few seconds.")
        except Exception:  # after the upgrade no HTTP answer can be given, so the socket must say it
            _log.exception("A socket failed.", extra={"action": "socket.failed"})
            _close(ws, outbox, 1011, "The server made a mistake. Connect again with since=<last id>.")
        finally:
            if joined:
                hub.presence.leave()

    return door


def _serve(ws: Server, outbox: Outbox, service: Service, hub: Hub) -> None:
    viewer = _greeted(ws, outbox, service, hub)
    try:
        hub.add(viewer)
        _listen(ws)
    except Stalled:
        _close(ws, outbox, 1013, TOO_SLOW)
    finally:
        hub.remove(viewer)


def _greeted(ws: Server, outbox: Outbox, service: Service, hub: Hub) -> Viewer:
    """The viewer that the query asks for, told how things stand. Nothing of this is kept while it watches."""
    query = parse_query(StreamQuery)
    run_id = query.run_id or hub.current
    try:
        shown = snapshot(service, run_id, connected_clients=hub.presence.total)
    except RunNotFound:  # its time ended just now
        run_id = None
        shown = snapshot(service, None, connected_clients=hub.presence.total)
    cursor = shown["last_id"] if query.since is None else query.since
    if query.run_id is None and cursor > shown["last_id"]:
        cursor = 0  # an id of an earlier run: all of this one is new to the client
    body = events.frame_body(EventType.STATUS, shown, run_id, times.now())
    outbox.offer(text_frame(events.with_id(body, None)))
    return Viewer(
        outbox=outbox,
        close=partial(_close, ws, outbox),
        ping=partial(_ping, ws, outbox),
        run_id=run_id,
        cursor=cursor,
        follows=query.run_id is None,
    )


def _listen(ws: Server) -> None:
    """Wait for the end of the connection; what the client says is not wanted, but a little is tolerated."""
    allowance, since = float(_MESSAGES_A_MINUTE), time.monotonic()
    while True:
        message: Any = ws.receive()
        now = time.monotonic()
        allowance = min(_MESSAGES_A_MINUTE, allowance + (now - since) * _MESSAGES_A_MINUTE / 60) - 1
        since = now
        if isinstance(message, bytes):
            ws.close(CloseReason.UNSUPPORTED_DATA, "This socket takes no binary messages.")
        elif allowance < 0:
            ws.close(CloseReason.POLICY_VIOLATION, "Too many messages; this socket listens to none.")


def _ping(ws: Server, outbox: Outbox) -> None:
    """Ask the client for a sign of life; one that gave none since it was last asked is gone."""
    if not outbox.idle:  # it would wait behind all that; one that reads nothing at all is found otherwise
        return
    if not ws.pong_received:
        _close(ws, outbox, CloseReason.POLICY_VIOLATION, "No answer to a ping.")
        return
    ws.pong_received = False
    with suppress(OSError):  # it is closed already
        outbox.send(_PING)


def _close(ws: Server, outbox: Outbox, code: int, reason: str) -> None:
    outbox.stop_frames()
    with suppress(ConnectionClosed, OSError):  # it is closed already
        ws.close(CloseReason(code), reason)
    ws.event.set()
