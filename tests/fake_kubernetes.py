"""A small Kubernetes API server that fails on demand: real HTTP on a free port of 127.0.0.1, objects in memory.

It keeps jobs, pods, secrets, leases and events with uid and resourceVersion, gives watches from a version on, and
logs as the kubelet does. Nothing acts by itself but what a test asks for, save that a deleted Job takes its pods and
its Secret along.
"""

import copy
import json
import os
import re
import select
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
EPOCH = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 10**9
_PULSE = 0.02
_PART = 16_384
_BLOCK = 30_000
_PATH = re.compile(r"/(?:api/v1|apis/[^/]+/[^/]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(/log)?")
_KINDS = {"jobs": "Job", "pods": "Pod", "secrets": "Secret", "leases": "Lease", "events": "Event"}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True)
class Request:
    """What a client asked for. `target` is the path with its query."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Json | None = None

    @property
    def target(self) -> str:
        return self.path + ("?" + "&".join(f"{key}={value}" for key, value in self.query.items()) if self.query else "")

    def matches(self, method: str, pattern: str) -> bool:
        """Whether it is of that method (`*`: any) and its target has the pattern in it."""
        return method in ("*", self.method) and re.search(pattern, self.target) is not None


@dataclass
class Fault:
    """What befalls the next `times` requests that match; `act` raises what is answered instead."""

    method: str
    pattern: str
    times: float
    act: Callable[[Request], None]
    after: bool = False


class Answer(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str = "", reason: str = "", headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.reason = reason or _REASONS.get(status, "Unknown")
        self.headers = headers or {}


class Reset(Exception):
    """The connection is torn down with RST."""


class Ended(Exception):
    """The stream ends here, cleanly."""


@dataclass(frozen=True)
class Piece:
    """A line of a container's log as the runtime writes it: no more than 16 KiB, the rest in further pieces."""

    at: int
    text: bytes
    whole: bool

    @property
    def stamp(self) -> bytes:
        """The time as the kubelet gives it."""
        moment = datetime.fromtimestamp(self.at // 10**9, UTC)
        fraction = f"{self.at % 10**9:09}".rstrip("0")
        return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z ".encode()


@dataclass
class Log:
    """The log of one container; `first` is the first piece that rotation has left."""

    pieces: list[Piece] = field(default_factory=list)
    first: int = 0
    ended: bool = False


class _Open:
    """A stream that is being given; `cut` and `inject` reach it from any thread."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.cut: type[Exception] | None = None
        self.extra: list[bytes] = []


class FakeKubernetes:
    """The API server; all its methods may be called from any thread."""

    def __init__(self, namespace: str = "lab") -> None:
        self.namespace = namespace
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.let_go: list[str] = []
        self.deletions: list[tuple[str, Json]] = []
        self.stuck: set[str] = set()
        self.expiry = "event"
        self.log_cuts: list[tuple[int, type[Exception]]] = []
        self.hooks: list[Callable[[Request, str], None]] = []
        self.streams: list[_Open] = []
        self._faults: list[Fault] = []
        self._objects: dict[tuple[str, str], Json] = {}
        self._history: list[tuple[int, str, str, Json]] = []
        self._logs: dict[tuple[str, str], Log] = {}
        self._version = 100
        self._oldest = 0
        self._clock = EPOCH
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # The server.

    def start(self) -> None:
        """Serve, on the same port as before if it served before."""
        self._stopping.clear()
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True, name="fake kubernetes").start()

    def stop(self) -> None:
        """Refuse connections and tear down those that are open; what is kept stays."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.tear_down()
            self._server = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.open) if self._server else 0

    # Faults.

    def answer(
        self,
        status: int,
        method: str = "*",
        pattern: str = ".",
        *,
        times: float = 1,
        reason: str = "",
        after: float = -1,
    ) -> Fault:
        """Answer the next requests with a status; `after` is the value of a Retry-After."""
        headers = {"Retry-After": str(after)} if after >= 0 else {}

        def act(_: Request) -> None:
            raise Answer(status, f"a fault of {status}", reason, headers)

        return self._fault(Fault(method, pattern, times, act))

    def reset(self, method: str = "*", pattern: str = ".", *, times: float = 1, after: bool = False) -> Fault:
        """Tear the connection down before or after the request has its effect."""

        def act(_: Request) -> None:
            raise Reset

        return self._fault(Fault(method, pattern, times, act, after))

    def hang(self, method: str = "*", pattern: str = ".", *, times: float = 1, after: bool = False) -> Fault:
        """Say nothing at all, before or after the effect, until the client or the server gives up."""

        def act(_: Request) -> None:
            self._stopping.wait(60)
            raise Reset

        return self._fault(Fault(method, pattern, times, act, after))

    def mend(self, fault: Fault) -> None:
        """End a fault."""
        fault.times = 0

    def expire(self) -> None:
        """Forget all versions before this one, so that who watches from an older one is told 410."""
        with self.lock:
            self._touch()
            self._oldest = self._version

    def cut(self, pattern: str, how: type[Exception] = Reset) -> int:
        """End open streams, with a reset or cleanly (`Ended`); returns how many."""
        with self.lock:
            found = [stream for stream in self.streams if re.search(pattern, stream.request.target)]
            for stream in found:
                stream.cut = how
            return len(found)

    def inject(self, pattern: str, data: bytes) -> None:
        """Say these bytes on open streams."""
        with self.lock:
            for stream in self.streams:
                if re.search(pattern, stream.request.target):
                    stream.extra.append(data)

    def count(self, method: str = "*", pattern: str = ".") -> int:
        """How many such requests came."""
        with self.lock:
            return sum(request.matches(method, pattern) for request in self.requests)

    def open_streams(self, pattern: str = ".") -> int:
        """How many such streams are being given."""
        with self.lock:
            return sum(re.search(pattern, stream.request.target) is not None for stream in self.streams)

    # Objects.

    def add(self, resource: str, body: Json) -> Json:
        """Keep a new object."""
        with self.lock:
            name = body["metadata"]["name"]
            if (resource, name) in self._objects:
                raise Answer(409, f'{resource} "{name}" already exists', "AlreadyExists")
            made = copy.deepcopy(body)
            at = datetime.fromtimestamp(self._tick() / 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            made["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": self.namespace, "creationTimestamp": at}
            made.setdefault("kind", _KINDS[resource])
            self._objects[resource, name] = made
            return self._told("ADDED", resource, made)

    def get(self, resource: str, name: str) -> Json | None:
        """The object as it is."""
        with self.lock:
            return copy.deepcopy(self._objects.get((resource, name)))

    def all(self, resource: str) -> list[Json]:
        """All objects of a kind."""
        with self.lock:
            return [copy.deepcopy(item) for (kind, _), item in self._objects.items() if kind == resource]

    def change(self, resource: str, name: str, change: Json) -> Json:
        """Merge a change into an object."""
        with self.lock:
            item = self._objects[resource, name]
            _merge(item, change)
            return self._told("MODIFIED", resource, item)

    def remove(self, resource: str, name: str) -> None:
        """Have an object gone, with all that it owns."""
        with self.lock:
            item = self._objects.pop((resource, name), None)
            if item is None:
                return
            self._told("DELETED", resource, item)
            if resource == "pods":
                for (pod, _), log in self._logs.items():
                    log.ended = log.ended or pod == name

    # Pods and their logs.

    def start_pod(
        self, name: str, labels: Mapping[str, str], container: str = "nextflow", owner: Json | None = None, **more: Any
    ) -> Json:
        """A pod whose container runs."""
        metadata: Json = {"name": name, "labels": dict(labels), **more}
        if owner is not None:
            metadata["ownerReferences"] = [
                {"kind": "Job", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
            ]
        status = {"phase": "Running", "containerStatuses": [_running(container)]}
        with self.lock:
            # Its log first: whoever sees the pod may write.
            self._logs[name, container] = Log()
        return self.add("pods", {"metadata": metadata, "status": status})

    def start_container(self, pod: str, container: str, *, init: bool = False) -> None:
        """One more container of a pod runs."""
        with self.lock:
            key = "initContainerStatuses" if init else "containerStatuses"
            there = self._objects["pods", pod]["status"].get(key, [])
            self._logs[pod, container] = Log()
            self.change("pods", pod, {"status": {key: [*there, _running(container)]}})

    def write(
        self, pod: str, *texts: str | bytes, container: str = "nextflow", whole: bool = True, step: int = 10**6
    ) -> None:
        """Write lines, a millisecond apart; `whole`: the last one with a newline at its end.

        As with containerd, a carriage return before a newline is not kept.
        """
        with self.lock:
            log = self._logs[pod, container]
            for number, text in enumerate(texts):
                data = text.encode() if isinstance(text, str) else text
                parts = [data[start : start + _PART] for start in range(0, max(len(data), 1), _PART)]
                for part in parts:
                    at = self._tick(step if part is parts[0] else 1000)
                    last = part is parts[-1] and (whole or number < len(texts) - 1)
                    log.pieces.append(Piece(at, part.removesuffix(b"\r") if last else part, last))

    def rotate(self, pod: str, container: str = "nextflow") -> None:
        """Have only what is written from now on be readable."""
        with self.lock:
            log = self._logs[pod, container]
            log.first = len(log.pieces)

    def end_container(
        self, pod: str, code: int = 0, *, container: str = "nextflow", tell: bool = True, **more: Any
    ) -> None:
        """End a container; `tell`: the pod's status says so. `more` goes into the terminated state."""
        with self.lock:
            self._logs[pod, container].ended = True
        if tell:
            self.tell_end(pod, code, container=container, **more)

    def tell_end(self, pod: str, code: int = 0, *, container: str = "nextflow", **more: Any) -> None:
        """The pod's status says that the container has ended, and that the pod has when no other runs."""
        with self.lock:
            status = copy.deepcopy(self._objects["pods", pod]["status"])
            states = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
            ended = {
                "exitCode": code,
                "finishedAt": "2026-01-31T12:30:00Z",
                "reason": "Completed" if code == 0 else "Error",
            }
            for state in states:
                if state["name"] == container:
                    state["state"] = {"terminated": ended | more}
            if all("terminated" in state["state"] for state in states):
                codes = [state["state"]["terminated"]["exitCode"] for state in status["containerStatuses"]]
                status["phase"] = "Failed" if any(codes) else "Succeeded"
            self.change("pods", pod, {"status": status})

    def finish_job(self, name: str, kind: str = "Complete", reason: str = "", message: str = "") -> None:
        """The Job's status says that it has ended."""
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        self.change("jobs", name, {"status": {"conditions": [condition]}})

    def finish(self, pod: str, job: str, code: int = 0, **more: Any) -> None:
        """The head ends, and its Job."""
        self.end_container(pod, code, **more)
        self.finish_job(job, "Failed" if code else "Complete", "BackoffLimitExceeded" if code else "CompletionsReached")

    # What requests do.

    def handle(self, request: Request) -> Json:
        """The effect of a request that is no stream. Raises Answer."""
        found = _PATH.fullmatch(request.path)
        if found is None:
            raise Answer(404, "the server could not find the requested resource")
        namespace, resource, name = found[1], found[2], found[3]
        with self.lock:
            if request.method == "POST":
                if namespace != self.namespace:
                    raise Answer(404, f'namespaces "{namespace}" not found')
                return self.add(resource, request.body or {})
            if name is None:
                return self._list(resource, request.query)
            if (resource, name) not in self._objects or namespace != self.namespace:
                raise Answer(404, f'{resource} "{name}" not found')
            return getattr(self, f"_{request.method.lower()}")(resource, name, request.body or {})  # type: ignore[no-any-return]

    def _get(self, resource: str, name: str, _: Json) -> Json:
        return copy.deepcopy(self._objects[resource, name])

    def _put(self, resource: str, name: str, body: Json) -> Json:
        before = self._objects[resource, name]
        if body["metadata"].get("resourceVersion") not in (None, before["metadata"]["resourceVersion"]):
            raise Answer(409, "the object has been modified; please apply your changes to the latest version")
        made = copy.deepcopy(body)
        for key in ("uid", "namespace", "creationTimestamp"):
            made["metadata"][key] = before["metadata"][key]
        self._objects[resource, name] = made
        return self._told("MODIFIED", resource, made)

    def _patch(self, resource: str, name: str, change: Json) -> Json:
        item = self._objects[resource, name]
        uid = item["metadata"]["uid"]
        if change.get("metadata", {}).get("uid", uid) != uid:
            raise Answer(409, "the UID in the precondition does not match")
        if resource == "jobs" and item["spec"].get("suspend") and change.get("spec", {}).get("suspend") is False:
            self.let_go.append(uid)
        _merge(item, change)
        return self._told("MODIFIED", resource, item)

    def _delete(self, resource: str, name: str, options: Json) -> Json:
        item = self._objects[resource, name]
        uid = item["metadata"]["uid"]
        if options.get("preconditions", {}).get("uid", uid) != uid:
            raise Answer(409, "the UID in the precondition does not match")
        self.deletions.append((f"{resource}/{name}", options))
        self.change(resource, name, {"metadata": {"deletionTimestamp": "2026-01-31T12:20:00Z"}})
        if resource == "jobs":
            self._delete_owned(uid)
        if resource == "pods":
            self._end_pod(name)
        if name not in self.stuck:
            self.remove(resource, name)
        return {"kind": "Status", "status": "Success"}

    def _delete_owned(self, uid: str) -> None:
        for (resource, name), item in list(self._objects.items()):
            if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", ())):
                if resource == "pods":
                    self._end_pod(name)
                if name not in self.stuck:
                    self.remove(resource, name)

    def _end_pod(self, name: str) -> None:
        """SIGTERM reaches what runs in a pod that does not stick."""
        if name in self.stuck:
            return
        for (pod, container), log in self._logs.items():
            if pod == name and not log.ended:
                self.end_container(name, 143, container=container)

    def _list(self, resource: str, query: Mapping[str, str]) -> Json:
        items = [copy.deepcopy(item) for (kind, _), item in self._objects.items() if kind == resource]
        items = [item for item in items if _selected(item, query)]
        return {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def _touch(self) -> int:
        self._version += 1
        return self._version

    def _tick(self, step: int = 10**6) -> int:
        self._clock += step
        return self._clock

    def _told(self, kind: str, resource: str, item: Json) -> Json:
        item["metadata"]["resourceVersion"] = str(self._touch())
        self._history.append((self._version, kind, resource, copy.deepcopy(item)))
        return copy.deepcopy(item)

    def pass_by(self, request: Request, phase: str) -> None:
        """Hooks and faults before (`before`) or after (`after`) the effect of a request."""
        for hook in list(self.hooks):
            hook(request, phase)
        with self.lock:
            for fault in self._faults:
                if (
                    fault.times > 0
                    and fault.after == (phase == "after")
                    and request.matches(fault.method, fault.pattern)
                ):
                    fault.times -= 1
                    break
            else:
                return
        fault.act(request)

    def _fault(self, fault: Fault) -> Fault:
        with self.lock:
            self._faults.append(fault)
        return fault

    # Streams.

    @contextmanager
    def opened(self, request: Request) -> Iterator[_Open]:
        """A stream, in the list of those that are being given."""
        stream = _Open(request)
        with self.lock:
            self.streams.append(stream)
        try:
            yield stream
        finally:
            with self.lock:
                self.streams.remove(stream)

    def watched(self, request: Request) -> Iterator[bytes]:
        """The lines of a watch, and an empty one when there is none just now. Raises Answer."""
        resource = _PATH.fullmatch(request.path)[2]  # type: ignore[index]
        seen = int(request.query.get("resourceVersion") or self._version)
        ends = time.monotonic() + float(request.query.get("timeoutSeconds", "300"))
        while time.monotonic() < ends:
            with self.lock:
                if seen < self._oldest:
                    yield self._expired()
                    return
                news = [entry for entry in self._history if entry[0] > seen and entry[2] == resource]
                seen = max([seen, *(entry[0] for entry in news)])
            for _, kind, _, item in news:
                if _selected(item, request.query):
                    yield _line({"type": kind, "object": item})
            yield b""

    def _expired(self) -> bytes:
        if self.expiry == "status":
            raise Answer(410, "too old resource version")
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        return _line({"type": "ERROR", "object": status})

    def bookmark(self, resource: str) -> bytes:
        """What tells a watch the newest version, without an object."""
        with self.lock:
            return _line(
                {
                    "type": "BOOKMARK",
                    "object": {"kind": _KINDS[resource], "metadata": {"resourceVersion": str(self._touch())}},
                }
            )

    def logged(self, request: Request) -> Iterator[bytes]:
        """The bytes of a log, and none when there is nothing new. Raises Answer."""
        pod = _PATH.fullmatch(request.path)[3]  # type: ignore[index]
        since = _nanoseconds(request.query["sinceTime"]) if "sinceTime" in request.query else 0
        with self.lock:
            if ("pods", pod) not in self._objects:
                raise Answer(404, f'pods "{pod}" not found')
            log = self._logs.get((pod, request.query["container"]))
            if log is None:
                raise Answer(400, "container is waiting to start: ContainerCreating")
            place = log.first
        fresh = True
        while True:
            with self.lock:
                ended = log.ended or request.query.get("follow") != "true"
                news = log.pieces[place:]
                place += len(news)
            data = b""
            for piece in news:
                if piece.at >= since:
                    data += (piece.stamp if fresh else b"") + piece.text + (b"\n" if piece.whole else b"")
                # The kubelet counts a piece that it leaves out too.
                fresh = piece.whole
            for start in range(0, len(data), _BLOCK):
                yield data[start : start + _BLOCK]
            if ended and not news:
                return
            yield b""

    def next_cut(self) -> tuple[int, type[Exception]] | None:
        """After how many bytes, and how, the next log is cut."""
        with self.lock:
            return self.log_cuts.pop(0) if self.log_cuts else None

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, fake: FakeKubernetes, port: int) -> None:
        self.fake = fake
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def tear_down(self) -> None:
        """Reset every connection."""
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave in the middle; that is what they are tested for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_any(self) -> None:
        """Answer one request."""
        fake = self.server.fake
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), body)
        try:
            with fake.lock:
                fake.requests.append(request)
            fake.pass_by(request, "before")
            if request.query.get("watch") == "true" or request.path.endswith("/log"):
                self._stream(request)
            else:
                made = fake.handle(request)
                fake.pass_by(request, "after")
                self._answer(201 if request.method == "POST" else 200, made)
        except Answer as answer:
            said = {"kind": "Status", "status": "Failure", "code": answer.status}
            self._answer(answer.status, {**said, "reason": answer.reason, "message": str(answer)}, answer.headers)
        except Reset:
            self._reset()
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815 - the base class's own names

    def _answer(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, request: Request) -> None:
        fake = self.server.fake
        watch = request.query.get("watch") == "true"
        pieces = fake.watched(request) if watch else fake.logged(request)
        first = next(pieces, None)
        begun = False
        cut = None if watch else fake.next_cut()
        left = cut[0] if cut else 1 << 60
        with fake.opened(request) as stream:
            while first is not None:
                data = b"".join([first, *stream.extra])
                stream.extra.clear()
                if not begun and (watch or data):  # the kubelet says nothing at all before the first line
                    self._head()
                    begun = True
                if data:
                    self._chunk(data[:left])
                    left -= len(data)
                if left <= 0 and cut is not None:
                    stream.cut = cut[1]
                if fake.stopping or stream.cut is Reset or self._client_left():
                    raise Reset
                if stream.cut is not None:
                    break
                if not data:
                    time.sleep(_PULSE)
                first = next(pieces, None)
            if not begun:
                self._head()
            self.wfile.write(b"0\r\n\r\n")

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _client_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _reset(self) -> None:
        self.close_connection = True
        self.server.open.discard(self.connection)
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())


def _running(container: str) -> Json:
    return {"name": container, "image": "lab/nextflow", "state": {"running": {"startedAt": "2026-01-31T12:00:00Z"}}}


def _merge(item: Json, change: Json) -> None:
    for key, value in change.items():
        if value is None:
            item.pop(key, None)
        elif isinstance(value, dict) and isinstance(item.get(key), dict):
            _merge(item[key], value)
        else:
            item[key] = copy.deepcopy(value)


def _selected(item: Json, query: Mapping[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    phase = item.get("status", {}).get("phase", "")
    fields = {"metadata.name": item["metadata"]["name"], "type": item.get("type", ""), "status.phase": phase}
    for selector, values in (("labelSelector", labels), ("fieldSelector", fields)):
        for term in filter(None, query.get(selector, "").split(",")):
            key, equals, value = term.partition("=")
            if key.endswith("!"):
                if values.get(key[:-1]) == value:
                    return False
            elif key not in values or (equals and values[key] != value):
                return False
    return True


def _nanoseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def _line(said: Json) -> bytes:
    return json.dumps(said).encode() + b"\n"
