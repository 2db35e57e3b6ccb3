"""Who may ask: hosts, origins, tokens and tickets, before any view and before any upgrade."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from shared.redis_client import Client
from shared.settings import Settings
from web.access import STREAM
from web.app import create_app

API = "/api/v1/pipeline"
TOKEN, OTHER = "a-long-enough-token", "another-long-enough-token"
SITE = "https://lab.example"
Made = Callable[..., FlaskClient]


@pytest.fixture
def made(settings: Settings) -> Made:
    """Makes a client of a service with other settings."""
    return lambda **values: create_app(replace(settings, **values)).test_client()


@pytest.fixture
def locked(made: Made) -> FlaskClient:
    """A client of a service that others can reach and that needs a token."""
    return made(auth_tokens=(TOKEN, OTHER), host="192.0.2.1")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [f"{API}/status", f"{API}/about", STREAM])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1", "https://lab.example.evil",
               "http://[", "http://[::1", "x"]
)  # fmt: skip
def test_pages_of_other_sites_are_refused(made: Made, path: str, origin: str) -> None:
    """A foreign Origin, or one that is none, is 403, for the API and for the socket before its upgrade."""
    response = made(allowed_origins=(SITE,)).get(path, headers={"Origin": origin})
    assert response.status_code == 403
    assert response.content_type == "application/problem+json"
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("origin", ["http://localhost", SITE])
def test_own_and_allowed_pages_are_served(made: Made, origin: str) -> None:
    """The service's own origin and those of ALLOWED_ORIGINS may ask."""
    assert made(allowed_origins=(SITE,)).get(f"{API}/status", headers={"Origin": origin}).status_code == 200


def test_allowed_sites_get_the_headers_that_browsers_want(made: Made) -> None:
    """An allowed site is named, may read the limits, and caches keep answers to different sites apart."""
    api = made(allowed_origins=(SITE,))
    response = api.get(f"{API}/status", headers={"Origin": SITE})
    assert response.headers["Access-Control-Allow-Origin"] == SITE
    assert "RateLimit-Remaining" in response.headers["Access-Control-Expose-Headers"]
    assert "Origin" in response.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in api.get(f"{API}/status").headers
    refused = api.get(f"{API}/runs/none", headers={"Origin": SITE})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (404, SITE)


def test_a_preflight_needs_no_token(made: Made) -> None:
    """A browser asks first, without its token, which methods and headers it may send."""
    api = made(allowed_origins=(SITE,), auth_tokens=(TOKEN,))
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    response = api.options(f"{API}/run", headers=asked)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == SITE
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for name in ("Authorization", "Content-Type", "Idempotency-Key"):
        assert name in response.headers["Access-Control-Allow-Headers"]
    assert api.options(f"{API}/run", headers=asked | {"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[", "a b", ""]
)
def test_foreign_hosts_are_refused_on_loopback(made: Made, host: str) -> None:
    """A site that has its name point to this machine does not get in."""
    assert made().get(f"{API}/status", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "lab.example"])
def test_own_hosts_are_served(made: Made, host: str) -> None:
    """Every name of this machine, and the hosts of ALLOWED_ORIGINS, by which a proxy may forward."""
    assert made(allowed_origins=(SITE,)).get(f"{API}/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong-long-enough-token"), bearer(""), bearer(TOKEN[:-1]), bearer(f"{TOKEN},{OTHER}"),
     {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer \xff\xfe"}],
)  # fmt: skip
def test_without_a_right_token_nothing_is_told(locked: FlaskClient, headers: dict[str, str]) -> None:
    """401, and which scheme is wanted, for every call but the one that says that tokens are needed."""
    for path in ("/status", "/history", "/runs/x", "/nothing", "/stream"):
        response = locked.get(API + path, headers=headers)
        assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert response.content_type == "application/problem+json"
    assert locked.post(f"{API}/run", json={"pipeline": "hello"}, headers=headers).status_code == 401
    assert (locked.get(f"{API}/about").json or {})["auth_required"] is True


@pytest.mark.parametrize("token", [TOKEN, OTHER])
def test_each_right_token_opens(locked: FlaskClient, token: str) -> None:
    """Any of the tokens is good, by whatever name the service is reached."""
    for host in ("192.0.2.1:8000", "lab.example"):
        assert locked.get(f"{API}/status", headers=bearer(token) | {"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/", "/openapi.json"])
def test_what_tells_nothing_of_runs_is_open(locked: FlaskClient, path: str) -> None:
    """Probes and pages need no token."""
    assert locked.get(path).status_code == 200


def ticket_of(api: FlaskClient) -> str:
    found: str = (api.post(f"{API}/ticket", headers=bearer(TOKEN)).json or {})["ticket"]
    return found


def test_a_ticket_opens_one_socket(locked: FlaskClient) -> None:
    """A ticket is good once, for the stream only, and none but a token's bearer gets one."""
    assert locked.post(f"{API}/ticket").status_code == 401
    ticket = ticket_of(locked)
    assert locked.get(f"{API}/status?ticket={ticket}").status_code == 401
    assert locked.get(f"{STREAM}?ticket={ticket}").status_code == 400
    assert locked.get(f"{STREAM}?ticket={ticket}").status_code == 401
    assert locked.get(f"{STREAM}?ticket=guess").status_code == 401


def test_a_ticket_runs_out(locked: FlaskClient, redis: Client) -> None:
    """A ticket lives half a minute; Redis holds its digest, never itself."""
    ticket = ticket_of(locked)
    (key,) = redis.keys("nfc:ticket:*")
    assert ticket.encode() not in key
    assert 0 < redis.ttl(key) <= 30
    redis.pexpire(key, 0)
    assert locked.get(f"{STREAM}?ticket={ticket}").status_code == 401


def test_clients_with_tokens_have_their_own_allowance(made: Made) -> None:
    """One who asks too often does not use up what another may ask."""
    api = made(auth_tokens=(TOKEN, OTHER), rate_limit="2/hour")
    said = [api.get(f"{API}/about", headers=bearer(token)).status_code for token in (TOKEN,) * 3 + (OTHER,) * 2]
    assert said == [200, 200, 429, 200, 200]
