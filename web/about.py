"""The HTTP door to the service itself: what it is, what it offers, and tickets for its socket."""

from flask import Blueprint, Response

from shared.settings import Settings
from web import answers
from web.access import TICKET_SECONDS, new_ticket
from web.catalog import read_catalog
from web.openapi import describe, package_version
from web.problems import json
from web.status import API
from web.wiring import Service


def about(service: Service) -> Blueprint:
    """The blueprint of `/about`, `/catalog` and `/ticket`."""
    door = Blueprint("about", __name__, url_prefix=API)
    settings = service.settings

    @door.post("/ticket")
    @describe(answers.Ticket, tags=["service"])
    def ticket() -> Response:
        """A ticket that opens one socket, for browsers, which cannot send a token with it."""
        return json({"ticket": new_ticket(service), "expires_in_seconds": TICKET_SECONDS})

    @door.get("/about")
    @describe(answers.About, tags=["service"])
    def facts() -> Response:
        """The service itself; needs no token."""
        return json(
            {
                "name": "Nextflow Controller",
                "version": package_version(),
                "runner": settings.runner,
                "flower_url": _flower_url(settings),
                "docs_url": "/docs",
                "auth_required": bool(settings.auth_tokens),
            }
        )

    @door.get("/catalog")
    @describe(answers.Catalog, tags=["service"])
    def catalog() -> Response:
        """Pipelines that can be started by name."""
        return json({"workflows": read_catalog(settings.pipelines_dir)})

    return door


def _flower_url(settings: Settings) -> str | None:
    """Flower listens on loopback alone, so without FLOWER_URL only this machine's own browsers have a link to it."""
    if settings.flower_url or not (settings.flower_port and settings.on_loopback):
        return settings.flower_url or None
    return f"http://127.0.0.1:{settings.flower_port}"
