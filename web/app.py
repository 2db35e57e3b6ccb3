"""The only place where a web process is put together."""

from flask import Flask
from flask_limiter import Limiter

from shared.settings import Settings
from web.about import about
from web.access import guard
from web.api import api
from web.connection import OPTIONS
from web.details import details
from web.health import health
from web.hub import Hub
from web.limits import limit_requests
from web.openapi import spec
from web.pages import documentation, pages
from web.presence import Presence
from web.problems import map_errors
from web.schemas import MAX_BODY_BYTES
from web.sockets import sockets
from web.wiring import connect_service


def create_app(settings: Settings) -> Flask:
    """The application, with its hub under `extensions["hub"]`; the hub is started by whoever serves."""
    service = connect_service(settings)
    presence = Presence(service.redis, settings.max_websocket_connections)
    hub = Hub(service.redis, service.store, service.feed, presence)
    app = Flask(__name__, static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["SOCK_SERVER_OPTIONS"] = OPTIONS
    app.extensions["hub"] = hub
    map_errors(app)
    # Counted before it is refused: a wrong token costs as much as a request.
    limiter = limit_requests(app, service)
    guard(app, service)
    for door in (api(service), details(service), about(service)):
        app.register_blueprint(door)
    for door in (sockets(service, hub), health(service, hub), pages(), documentation()):
        _exempt(limiter, app, door)
    limiter.exempt(app.view_functions["static"])
    # Not registered: that would add pages of spectree's own beside `/docs`.
    spec.app = app
    return app


def _exempt(limiter: Limiter, app: Flask, door: object) -> None:
    limiter.exempt(door)  # type: ignore[call-overload]
    app.register_blueprint(door)  # type: ignore[arg-type]
