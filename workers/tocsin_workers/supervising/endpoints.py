"""The HTTP server of a supervisor: `/metrics`, `/livez`, `/readyz` and `/startupz`, for GET and HEAD; nothing else.

It is small and bounded: a thread a connection, a few connections at a time, none of them for long. Where there are too
many the oldest gives way, so that nobody who holds connections open keeps Kubernetes from asking how we are.
"""

from __future__ import annotations

import json
import socket
import time
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app  # pyright: ignore[reportUnknownVariableType]  # half typed

from tocsin_workers.supervising import health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

    from tocsin_workers.supervising.family import FamilyState
    from tocsin_workers.supervising.health import Health

_log = structlog.get_logger(__name__)

METRICS_PATH: Final = "/metrics"
LIVENESS_PATH: Final = "/livez"
READINESS_PATH: Final = "/readyz"
START_PATH: Final = "/startupz"

MOST_CONNECTIONS: Final = 16
#: How long a client may take to send the next piece of its request, or to read the next of its answer.
IDLE_SECONDS: Final = 5.0


class Endpoints:
    """What is answered. `registry` has the metrics; `family` tells of the children, `ask_servers` of what they need."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        family: Callable[[], FamilyState],
        ask_servers: Callable[[], dict[str, str]],
    ) -> None:
        self._metrics = cast("WSGIApplication", make_wsgi_app(registry))
        self._one_scrape = Lock()
        self._checks: dict[str, Callable[[], Health]] = {
            LIVENESS_PATH: lambda: health.liveness(family(), time.monotonic()),
            READINESS_PATH: lambda: health.readiness(family(), ask_servers()),
            START_PATH: lambda: health.start(family()),
        }

    def serve(self, host: str, port: int) -> int:
        """Listen, in a thread; give the port, which is a free one where 0 was asked for. Raises OSError."""
        server = _Server(host, port)
        server.set_app(self)
        Thread(target=server.serve_forever, name="endpoints", daemon=True).start()
        return server.server_port

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        method, path = environment["REQUEST_METHOD"], environment.get("PATH_INFO", "")
        if path != METRICS_PATH and path not in self._checks:
            return _answer(start_response, method, HTTPStatus.NOT_FOUND, {"status": "not found"})
        if method not in ("GET", "HEAD"):
            return _answer(start_response, method, HTTPStatus.METHOD_NOT_ALLOWED, {"status": "only GET and HEAD"})
        try:
            if path == METRICS_PATH:
                # One after the other: each reads the files of all children.
                with self._one_scrape:
                    body = list(self._metrics({**environment, "REQUEST_METHOD": "GET"}, start_response))
                return [] if method == "HEAD" else body
            told = self._checks[path]()
        except Exception:  # noqa: BLE001 - logged, whatever it is
            # The library would write a traceback of its own form to standard error.
            _log.exception("an endpoint failed", path=path)
            return _answer(start_response, method, HTTPStatus.INTERNAL_SERVER_ERROR, {"status": "failed"})
        status = HTTPStatus.OK if told.is_good else HTTPStatus.SERVICE_UNAVAILABLE
        return _answer(start_response, method, status, told.body)


def _answer(start_response: StartResponse, method: str, status: HTTPStatus, body: dict[str, object]) -> list[bytes]:
    octets = json.dumps(body).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(octets))),
        ("Cache-Control", "no-store"),
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if method == "HEAD" else [octets]


class _Handler(WSGIRequestHandler):
    """Serves one request a connection, and logs none: probes come all day."""

    timeout = IDLE_SECONDS
    server_version = "tocsin"
    sys_version = ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""

    def address_string(self) -> str:
        """Give the client's address without asking the name service for its name."""
        return str(self.client_address[0])


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = Lock()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__(address[:2], _Handler)  # pyright: ignore[reportArgumentType]  # host and port of either family

    def server_bind(self) -> None:
        """Bind, without asking the name service for our own name as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # never a datagram
        """Begin a connection; of too many the oldest ends."""
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _end(oldest)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # never a datagram
        """End a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away, or are sent away."""


def _end(connection: socket.socket) -> None:
    """Cut a connection off; its thread then ends."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
