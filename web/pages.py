"""The pages: the viewer at `/`, the API's documentation at `/docs`, its OpenAPI document."""

from pathlib import Path

from flask import Blueprint, Response, send_from_directory
from flask_swagger_ui import get_swaggerui_blueprint

from web.openapi import document
from web.problems import json

STATIC = Path(__file__).parent / "static"
_POLICY = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'"


def pages() -> Blueprint:
    """`/` and `/openapi.json`."""
    door = Blueprint("pages", __name__)

    @door.get("/")
    def viewer() -> Response:
        response = send_from_directory(STATIC, "index.html")
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Cache-Control"] = "no-cache"
        return response

    @door.get("/openapi.json")
    def openapi() -> Response:
        return json(document())

    return door


def documentation() -> Blueprint:
    """`/docs`, with its scripts served from here: a lab's network may have no way out."""
    door: Blueprint = get_swaggerui_blueprint("/docs", "/openapi.json", config={"app_name": "Nextflow Controller"})
    return door
