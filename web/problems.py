"""Errors as clients see them: RFC 9457, mapped here and nowhere else."""

import logging
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, TooManyRequests
from werkzeug.routing import WebsocketMismatch

from shared.errors import Busy, Conflict, KeyReused, QueueFull, RunNotFound, StoreAway
from web.schemas import InvalidRequest

PROBLEM_TYPE = "application/problem+json"
RETRY_SECONDS = "3"
_log = logging.getLogger(__name__)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """An `application/problem+json` answer."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(orjson.dumps(body), status, headers, content_type=PROBLEM_TYPE)


def json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, content_type="application/json")


def map_errors(app: Flask) -> None:
    """Give every error that can leave a view its answer."""
    retry = {"Retry-After": RETRY_SECONDS}

    @app.errorhandler(InvalidRequest)
    def _invalid(error: InvalidRequest) -> Response:
        first = error.errors[0]
        place = ".".join(str(part) for part in first["loc"]) or "The request"
        return problem(422, f"{place}: {first['msg'].rstrip('.')}.", errors=error.errors)

    @app.errorhandler(RunNotFound)
    def _not_found(error: RunNotFound) -> Response:
        return problem(404, str(error))

    @app.errorhandler(Busy)
    def _busy(error: Busy) -> Response:
        return problem(409, str(error), active_run_id=error.active)

    @app.errorhandler(KeyReused)
    def _reused(error: KeyReused) -> Response:
        return problem(422, str(error), errors=[{"loc": ["header", "Idempotency-Key"], "msg": "was used before"}])

    @app.errorhandler(QueueFull)
    @app.errorhandler(Conflict)
    def _later(error: Exception) -> Response:
        return problem(503, str(error), retry)

    # Redis' own errors come from the rate limit, when several requests meet its going away at once.
    @app.errorhandler(RedisError)
    @app.errorhandler(StoreAway)
    def _away(error: Exception) -> Response:
        _log.warning("%s", error, extra={"action": "store.away"})
        said = error if isinstance(error, StoreAway) else "Redis does not answer."
        return problem(503, f"{said} What runs goes on; try again in a few seconds.", retry)

    @app.errorhandler(WebsocketMismatch)
    def _no_upgrade(_error: WebsocketMismatch) -> Response:
        return problem(400, "This is a WebSocket: connect to it with ws:// or wss://.")

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        if error.response is not None and isinstance(error.response, Response):
            return error.response
        status = error.code or 500
        detail = error.description
        if isinstance(error, TooManyRequests):  # whose description is the limit
            detail = f"Too many requests: a client may make {detail} (RATE_LIMIT)."
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Location", "Retry-After")}
        return problem(status, detail or HTTPStatus(status).phrase, headers)

    @app.errorhandler(Exception)
    def _mistake(_error: Exception) -> Response:
        # The last resort: the trace is for the log, never for the client.
        _log.exception("A request failed.", extra={"action": "request.failed"})
        return problem(500, "The server made a mistake; its log says more.")
