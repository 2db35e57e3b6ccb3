"""The rate limit: counted in Redis for all web processes, in memory while Redis is away."""

import math
import time
from contextlib import suppress
from typing import Any

from flask import Flask, Response
from flask_limiter import Limiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared import keys
from web.access import client_name
from web.wiring import Service


def limit_requests(app: Flask, service: Service) -> Limiter:
    """Limit all views that are not exempt, and say in headers how much is left."""
    # Handed on to redis-py, which takes more than the text that the annotation names.
    quick: Any = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
    limiter = Limiter(
        key_func=client_name(service),
        app=app,
        # One allowance for the whole API, not one a view.
        application_limits=[service.settings.rate_limit],
        storage_uri=_storage_uri(service.settings.redis_url),
        storage_options=quick,
        key_prefix=keys.LIMITS_PREFIX,
        in_memory_fallback_enabled=True,
        strategy="fixed-window",
    )

    @app.after_request
    def _tell(response: Response) -> Response:
        # These figures are asked of Redis: without them the answer is as good.
        with suppress(RedisError, OSError):
            _say_what_is_left(response, limiter)
        return response

    return limiter


def _say_what_is_left(response: Response, limiter: Limiter) -> None:
    current = limiter.current_limit
    if current is None:
        return
    seconds = str(max(0, math.ceil(current.reset_at - time.time())))
    response.headers["RateLimit-Limit"] = str(current.limit.amount)
    response.headers["RateLimit-Remaining"] = str(max(0, current.remaining))
    response.headers["RateLimit-Reset"] = seconds
    if response.status_code == 429:
        response.headers["Retry-After"] = seconds


def _storage_uri(redis_url: str) -> str:
    return redis_url.replace("unix://", "redis+unix://", 1) if redis_url.startswith("unix://") else redis_url
