"""The WebSocket door: `/api/v1/pipeline/stream`. All refusals happen before the upgrade but one."""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint, g, request
from flask_sock import Sock
from pydantic import BaseModel, ConfigDict, Field
from simple_websocket import Server
from werkzeug.exceptions import BadRequest
from wsproto.frame_protocol import CloseReason

from shared import events, times
from shared.errors import RunNotFound, StoreAway
from shared.events import EventType
from shared.runs import RunStatus
from shared.store import Standing, Store, Which
from web.connection import FAILED, Connection, taken_over
from web.hub import TOO_SLOW, Hub, Viewer
from web.outbox import Stalled, text_frame
from web.schemas import parse_query
from web.status import snapshot
from web.wiring import Service

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_log = logging.getLogger(__name__)


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
        g.standing = _standing(service.store, hub, query.run_id)

    @sock.route("/api/v1/pipeline/stream", bp=door)  # type: ignore[untyped-decorator]  # flask-sock has no types
    def stream(ws: Server) -> None:
        connection = taken_over(ws)
        try:
            if hub.presence.join():
                connection.at_end(hub.presence.leave)
                _watch(connection, service, hub)
            else:
                connection.refuse(CloseReason.TRY_AGAIN_LATER, "Too many sockets are open. Try again later.")
        except (Stalled, RunNotFound, OSError):  # too far behind, its run's time ended just now, or it went
            connection.close(CloseReason.TRY_AGAIN_LATER, TOO_SLOW)
        except StoreAway:
            connection.close(CloseReason.TRY_AGAIN_LATER, "Redis is away. Connect again in a few seconds.")
        except Exception:  # after the upgrade no HTTP answer can be given, so the socket must say it
            _log.exception("A socket failed.", extra={"action": "socket.failed"})
            connection.close(CloseReason.INTERNAL_ERROR, FAILED)

    return door


def _watch(connection: Connection, service: Service, hub: Hub) -> None:
    viewer = _greeted(connection, service, hub, g.pop("standing"))
    try:
        hub.add(viewer)
    finally:
        connection.at_end(partial(hub.remove, viewer))


def _standing(store: Store, hub: Hub, run_id: str | None) -> Standing:
    """How things stand for who asks for a run, or for whatever is active. Raises RunNotFound and StoreAway."""
    if run_id is not None:
        return store.standing(run_id)
    hub.notice()
    with suppress(RunNotFound):  # its time ended just now
        return store.standing(hub.current or Which.NONE)
    return store.standing(Which.NONE)


def _greeted(connection: Connection, service: Service, hub: Hub, standing: Standing) -> Viewer:
    """The viewer that the query asks for, told how things stand."""
    query = parse_query(StreamQuery)
    run_id = standing.kept.run.run_id if standing.kept else None
    shown = snapshot(standing, connected_clients=hub.presence.total)
    last_id = shown["last_id"]
    cursor = last_id if query.since is None else query.since
    if cursor > last_id and query.run_id is None:
        cursor = 0  # an id of an earlier run: all of this one is new to the client
    elif cursor > last_id and RunStatus(shown["status"]).final:
        cursor = last_id - 1  # Redis has lost what the client saw, and nothing comes any more but the end
    # What is no longer kept is told by the snapshot's `first_id`; from there on nothing may be missing.
    cursor = max(cursor, shown["first_id"] - 1)

    def tell(data: Mapping[str, Any]) -> None:
        body = events.frame_body(EventType.STATUS, data, run_id, times.now())
        connection.outbox.offer(text_frame(events.with_id(body, None)))

    def tell_anew(first_id: int) -> None:
        now = replace(service.store.standing(run_id or Which.NONE), first_id=first_id)
        tell(snapshot(now, connected_clients=hub.presence.total))

    tell(shown)
    return Viewer(
        outbox=connection.outbox,
        close=connection.close,
        ping=connection.ping,
        run_id=run_id,
        cursor=cursor,
        follows=query.run_id is None,
        tell_anew=tell_anew,
        greeted=last_id,
    )
