"""Stands between the service and the API server, and breaks what passes through it on demand."""

import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any

_SILENT = -1
_NOT_PASSED_ON = {"connection", "transfer-encoding", "keep-alive", "host"}


@dataclass(eq=False)
class _Stream:
    """An answer that goes on."""

    wire: socket
    is_log: bool
    over: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed, as here many are, is nothing to tell."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Proxy:
    """Serves plain HTTP on a free port of 127.0.0.1 and passes everything on to an API server."""

    def __init__(self, host: str, port: int, authority: Path) -> None:
        self.host, self.port = host, port
        self.tls = ssl.create_default_context(cafile=str(authority))
        self.fault = 0
        """What is wrong now: 0 for nothing, an HTTP status that every request gets, or silence."""
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="proxy").start()

    def close(self) -> None:
        """Serve no more, and end all that is open."""
        self.cut(logs_only=False)
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def answering(self, status: int) -> Iterator[None]:
        """Every request is answered with this status, and what went on before is cut off."""
        self.fault = status
        self.cut(logs_only=False)
        yield
        self.fault = 0

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing is answered, and nothing comes on streams that are open; what was asked meanwhile is dropped."""
        self.fault = _SILENT
        yield
        self.fault = 0

    def cut(self, *, logs_only: bool) -> int:
        """Break streams off, wherever they are; returns at once, and tells how many there were."""
        streams = self._forget_streams(logs_only=logs_only)
        for stream in streams:
            with suppress(OSError):
                stream.wire.shutdown(SHUT_RDWR)
        return len(streams)

    def end_logs(self) -> int:
        """End logs in order, as if there were no more, when the next piece comes; tells how many there were."""
        streams = self._forget_streams(logs_only=True)
        for stream in streams:
            stream.over = True
        return len(streams)

    def _forget_streams(self, *, logs_only: bool) -> "list[_Stream]":
        """Those that are open: each is broken off once."""
        with self._lock:
            found = [stream for stream in self._streams if stream.is_log or not logs_only]
            self._streams.difference_update(found)
        return found

    @contextmanager
    def streaming(self, wire: socket, *, is_log: bool) -> "Iterator[_Stream]":
        """Know this connection as one that goes on."""
        stream = _Stream(wire, is_log)
        with self._lock:
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def wait_for_speech(self) -> bool:
        """Wait while nothing may be said; returns whether it had to."""
        waited = False
        while self.fault == _SILENT:
            waited = True
            time.sleep(0.05)
        return waited


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A log's line must not wait for the acknowledgement of the one before.
        disable_nagle_algorithm = True

        def _relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.wait_for_speech():
                self.close_connection = True
            elif proxy.fault:
                self._refuse(proxy.fault)
            else:
                self._pass_on(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _relay  # noqa: N815 - the library's names

        def _refuse(self, status: int) -> None:
            said = {"kind": "Status", "status": "Failure", "message": "broken on demand", "code": status}
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _pass_on(self, body: bytes) -> None:
            upstream = HTTPSConnection(proxy.host, proxy.port, context=proxy.tls)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            try:
                upstream.request(self.command, self.path, body or None, headers)
                self._answer(upstream.getresponse())
            except (OSError, HTTPException):  # of either side: the other one sees it broken off
                self.close_connection = True
            finally:
                upstream.close()

        def _answer(self, response: HTTPResponse) -> None:
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            if response.length is not None:
                self.end_headers()
                self.wfile.write(response.read())
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with proxy.streaming(self.connection, is_log="/log?" in self.path) as stream:
                while (data := response.read1(65_536)) and not stream.over:
                    proxy.wait_for_speech()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
