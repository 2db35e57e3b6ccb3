"""While Redis is away the service says so; what becomes of runs under faults is tried in `tests/faults`."""

import os
import signal
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_without_redis_the_service_says_so_and_heals(own_service: Any) -> None:
    """While Redis is away: 503 with Retry-After, alive all the same; afterwards all is well by itself."""
    [pid, *_] = own_service.children("redis-server")
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = own_service.get("/api/v1/pipeline/status")
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        health = own_service.get("/health")
        assert health.status_code == 503
        assert health.json()["checks"]["redis"]["ok"] is False
        assert own_service.get("/healthz").status_code == 200
        assert "nfctl_redis_up 0.0" in own_service.get("/metrics").text
    finally:
        os.kill(pid, signal.SIGCONT)
    own_service.wait(lambda: own_service.get("/health").status_code == 200)
    assert own_service.ended(own_service.submit("hello", parameters={"fast": True}))["status"] == "succeeded"
