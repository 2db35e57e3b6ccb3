"""Is it alive, is it ready, and its figures for Prometheus. None of these is limited or needs a token."""

from typing import Any

from flask import Blueprint, Response, jsonify
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shared import keys
from shared.broker import Broker
from shared.errors import StoreAway
from shared.redis_client import store_errors
from shared.runs import RunStatus
from web import answers
from web.hub import Hub
from web.openapi import describe
from web.wiring import Service

_ANSWER_SECONDS = 2.0


def health(service: Service, hub: Hub) -> Blueprint:
    """`/healthz`, `/health` and `/metrics`."""
    door = Blueprint("health", __name__)

    @door.get("/healthz")
    @describe(answers.Alive, {}, tags=["service"])
    def alive() -> Response:
        """Whether the process is alive."""
        return jsonify(status="alive")

    @door.get("/health")
    @describe(answers.Health, {"HTTP_503": answers.Health}, tags=["service"])
    def ready() -> tuple[Response, int]:
        """Whether Redis, a worker and the runner answer, and events are relayed."""
        checks = _checks(service, hub)
        ok = all(check["ok"] for check in checks.values())
        answer = jsonify(status="ok" if ok else "unavailable", checks=checks, strays=_strays(service))
        if not ok:
            answer.headers["Retry-After"] = "3"
        return answer, 200 if ok else 503

    @door.get("/metrics")
    @describe(None, {}, tags=["service"])
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(_figures(service, hub)), content_type=CONTENT_TYPE_LATEST)

    return door


def _checks(service: Service, hub: Hub) -> dict[str, dict[str, Any]]:
    try:
        with store_errors():
            # A Redis that is full answers a ping, and nothing else goes.
            service.redis.set(keys.HEALTH, "", ex=60)
            _, relayed = hub.presence.look()
    except StoreAway as error:
        away = {"ok": False, "detail": "Unknown while Redis is away."}
        return {"redis": {"ok": False, "detail": str(error)}, "worker": away, "runner": away, "live": away}
    live = {"ok": relayed, "detail": "Events are relayed." if relayed else "No process relays events yet."}
    return {"redis": {"ok": True, "detail": "Redis answers."}, **_ask_worker(service.broker), "live": live}


def _strays(service: Service) -> list[str] | None:
    try:
        return service.store.strays()
    except StoreAway:
        return None


def _ask_worker(broker: Broker) -> dict[str, dict[str, Any]]:
    try:
        answer = broker.ask_worker(_ANSWER_SECONDS)
    except StoreAway:
        answer = None
    if answer is not None:
        name, runner = answer
        return {"worker": {"ok": True, "detail": f"{name} answers."}, "runner": runner}
    silent = {"ok": False, "detail": f"No worker answered within {_ANSWER_SECONDS:.0f} s. Start one."}
    return {"worker": silent, "runner": {"ok": False, "detail": "Only a worker knows, and none answers."}}


def _figures(service: Service, hub: Hub) -> CollectorRegistry:
    """All figures come from Redis, so every process tells the same."""
    registry = CollectorRegistry()
    up = Gauge("nfctl_redis_up", "Whether Redis answers.", registry=registry)
    viewers = Gauge("nfctl_websocket_connections", "Open sockets, over all processes.", registry=registry)
    try:
        viewers.set(hub.presence.look()[0])
        totals = service.store.totals()
        active, waiting = service.store.active_id(), service.store.queue_length()
        strays = service.store.strays()
    except StoreAway:
        up.set(0)
        return registry
    up.set(1)
    Gauge("nfctl_active_runs", "Runs at work: 0 or 1.", registry=registry).set(1 if active else 0)
    Gauge("nfctl_queued_runs", "Runs that wait.", registry=registry).set(waiting)
    if strays is not None:
        told = Gauge("nfctl_strays", "Runs that are not active and have something at work.", registry=registry)
        told.set(len(strays))
    ended = Counter("nfctl_runs", "Runs that have ended.", ["status"], registry=registry)
    for status in RunStatus:
        if status.final:
            ended.labels(status.value).inc(totals.get(status.value, 0))
    return registry
