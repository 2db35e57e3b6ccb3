"""Calls the Kubernetes API server: JSON in, JSON out, a timeout on every call, and two kinds of error.

The client library brings configuration, credentials and connections. Its models are not used: they cost
10 MiB of memory, and refuse what a newer API server may say.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError

from shared.errors import CannotStart, ClusterAway, ClusterRefused
from shared.settings import Settings

CONNECT_SECONDS = 3.0
_CALL_SECONDS = 10.0
_READ_BYTES = 65_536
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# What a later call may answer otherwise; 401 too, as tokens are rotated.
_PASSING = frozenset({401, 408, 429, 500, 502, 503, 504})

Json = dict[str, Any]


class Stream:
    """A response that goes on: its bytes as they come. `cut` ends it, from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        """Raises ClusterAway when the stream breaks or is silent for longer than its timeout."""
        try:
            yield from self._response.stream(_READ_BYTES)
        # A response that is cut in the middle of a read fails in more ways than the library names.
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            raise ClusterAway(f"The stream from the API server broke: {_words(error)}.") from error
        finally:
            self._response.close()

    def cut(self) -> None:
        """End the stream now."""
        with suppress(OSError, ValueError, AttributeError, RuntimeError):
            self._response.shutdown()


@dataclass(frozen=True, slots=True)
class Away:
    """The API server has not answered as it should since that time (monotonic seconds); how it failed first."""

    since: float
    error: ClusterAway


class Api:
    """One API server, as the settings name it. Usable from many threads, and not across a fork."""

    def __init__(self, configuration: Configuration) -> None:
        self.host = str(configuration.host)
        # Dead connections are noticed by probes, not by lines that do not come. Failed calls are repeated by those
        # who know whether they may be.
        configuration.keep_alive = True
        configuration.retries = urllib3.Retry(0, redirect=0)
        configuration.connection_pool_maxsize = 16
        self.away: Away | None = None
        self._client = ApiClient(configuration)
        self._client.user_agent = "nextflow-controller"

    def get(self, path: str, query: Mapping[str, str] | None = None, *, seconds: float = _CALL_SECONDS) -> Json:
        """What is there. Raises ClusterAway or ClusterRefused, as all calls do."""
        return self._call("GET", path, query=query, seconds=seconds)

    def create(self, path: str, body: Json) -> Json:
        """Make a new object."""
        return self._call("POST", path, body=body)

    def replace(self, path: str, body: Json) -> Json:
        """Put an object in the place of another; refused with 409 if its resourceVersion is not the newest."""
        return self._call("PUT", path, body=body)

    def merge(self, path: str, change: Json) -> Json:
        """Change the named fields of an object."""
        return self._call("PATCH", path, body=change, content_type="application/merge-patch+json")

    def delete(self, path: str, options: Json) -> Json:
        """Remove an object, as `options` (DeleteOptions) say."""
        return self._call("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def stream(self, path: str, query: Mapping[str, str], *, read_seconds: float) -> Stream:
        """A watch or a log. It breaks when nothing comes for `read_seconds`."""
        return Stream(self._send("GET", path, query=query, timeout=(CONNECT_SECONDS, read_seconds)))

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _call(self, method: str, path: str, seconds: float = _CALL_SECONDS, **what: Any) -> Json:
        response = self._send(method, path, timeout=(min(CONNECT_SECONDS, seconds), seconds), **what)
        try:
            found = json.loads(response.read())
        except (HTTPError, OSError, ValueError) as error:
            raise ClusterAway(f"The API server's answer broke off: {_words(error)}.") from error
        finally:
            response.release_conn()
        if not isinstance(found, dict):
            raise ClusterAway("The API server's answer is no object.")
        return found

    def _send(self, method: str, path: str, **what: Any) -> urllib3.BaseHTTPResponse:
        try:
            response = self._sent(method, path, **what)
        except ClusterAway as error:
            self.away = self.away or Away(time.monotonic(), error)
            raise
        except ClusterRefused:
            self.away = None
            raise
        self.away = None
        return response

    def _sent(
        self,
        method: str,
        path: str,
        *,
        timeout: tuple[float, float],
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        try:
            prepared = self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json, */*", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response: urllib3.BaseHTTPResponse = self._client.call_api(*prepared, _request_timeout=timeout).response
        except (HTTPError, ApiException, OSError, ValueError) as error:
            raise ClusterAway(f"The API server at {self.host} cannot be reached: {_words(error)}.") from error
        if response.status >= 300:
            raise _refusal(response)
        return response


def connect(settings: Settings) -> Api:
    """The API server of KUBE_CONTEXT, else of the cluster around this process, else of the kubeconfig.

    Raises CannotStart when none of them is configured.
    """
    configuration = Configuration()
    try:
        if not settings.kube_context and _TOKEN.exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            context = settings.kube_context or None
            load_kube_config(context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError) as error:
        raise CannotStart(
            f"No Kubernetes cluster is configured: {_words(error)}. Set KUBECONFIG and KUBE_CONTEXT for the worker, "
            "or run it inside the cluster.",
            sure=False,
        ) from error
    return Api(configuration)


def _refusal(response: urllib3.BaseHTTPResponse) -> ClusterAway | ClusterRefused:
    try:
        said = json.loads(response.read())
        message, reason = str(said["message"]), str(said.get("reason", ""))
    except (HTTPError, OSError, ValueError, KeyError, TypeError):
        message, reason = f"HTTP {response.status} {response.reason}", ""
    finally:
        response.release_conn()
    if response.status in _PASSING:
        return ClusterAway(f"The API server answers {response.status}: {message}.")
    return ClusterRefused(response.status, reason, message)


def _words(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300].rstrip(".")
