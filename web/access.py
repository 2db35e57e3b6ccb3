"""Who may ask: the host and origin a request comes by, bearer tokens, and tickets for sockets."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask, Response, request

from shared import keys
from shared.redis_client import store_errors
from web.problems import problem
from web.status import API
from web.wiring import Service

TICKET_SECONDS = 30
STREAM = f"{API}/stream"
_OPEN_WITHOUT_TOKEN = frozenset({f"{API}/about"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def guard(app: Flask, service: Service) -> None:
    """Check every request before its view, and so every socket before its upgrade."""
    access = Access(service)

    @app.before_request
    def _check() -> Response | None:
        if not request.path.startswith("/api/"):
            return None
        if not access.host_is_ours():
            return problem(
                403,
                f"The host {request.host!r} is not one this service knows. Use localhost, or add the "
                "origin of your site to ALLOWED_ORIGINS.",
            )
        if not access.origin_is_allowed():
            return problem(403, f"Pages from {request.headers['Origin']!r} may not use this service.")
        if request.method == "OPTIONS" or request.path in _OPEN_WITHOUT_TOKEN or access.is_known():
            return None
        return problem(
            401,
            "Send a token: the header 'Authorization: Bearer <token>', or for a browser's socket ?ticket=.",
            {"WWW-Authenticate": "Bearer"},
        )

    @app.after_request
    def _cors(response: Response) -> Response:
        origin = request.headers.get("Origin")
        if origin and origin in service.settings.allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Idempotency-Key"
            response.headers["Access-Control-Expose-Headers"] = (
                "Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
            )
            response.headers["Access-Control-Max-Age"] = "600"
        response.headers.add("Vary", "Origin")
        return response


class Access:
    """The rules; each looks at the request at hand."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._digests = [_digest(token) for token in service.settings.auth_tokens]
        self._origins = frozenset(service.settings.allowed_origins)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)

    def host_is_ours(self) -> bool:
        """Open on loopback, only loopback's names count: else a foreign site could have its name point here."""
        if self._digests:
            return True
        return urlsplit(f"//{request.host}").hostname in _LOOPBACK or request.host in self._hosts

    def origin_is_allowed(self) -> bool:
        """No Origin (no browser), the service's own, or one of ALLOWED_ORIGINS."""
        origin = request.headers.get("Origin")
        return origin is None or origin in self._origins or origin.partition("://")[2] == request.host

    def known_token(self) -> bytes | None:
        """The digest of the request's token, if it is one of ours."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = _digest(token.strip())
        known = any(hmac.compare_digest(given, digest) for digest in self._digests)
        return given if scheme.lower() == "bearer" and known else None

    def is_known(self) -> bool:
        """A right token, or on the stream an unused ticket; anyone when no tokens are set. Raises StoreAway."""
        if not self._digests or self.known_token():
            return True
        ticket = request.args.get("ticket") if request.path == STREAM else None
        return bool(ticket) and use_ticket(self._service, ticket or "")


def new_ticket(service: Service) -> str:
    """A ticket that opens one socket within `TICKET_SECONDS`. Raises StoreAway."""
    ticket = secrets.token_urlsafe(32)
    with store_errors():
        service.redis.set(keys.ticket(_digest(ticket).hex()), 1, ex=TICKET_SECONDS)
    return ticket


def use_ticket(service: Service, ticket: str) -> bool:
    """Whether the ticket was unused until now. Raises StoreAway."""
    with store_errors():
        return service.redis.getdel(keys.ticket(_digest(ticket).hex())) is not None


def client_name(service: Service) -> Callable[[], str]:
    """Tells clients apart for the rate limit: by token where there are tokens, else by address."""

    access = Access(service)

    def name() -> str:
        known = access.known_token()
        return known.hex()[:16] if known else request.remote_addr or "unknown"

    return name


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
