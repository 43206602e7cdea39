"""A worker's endpoints for scrapers, orchestrators and people on call: `/metrics`, `/health/live` and `/health/ready`."""

import json
import logging
import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import monotonic
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from infra.build import build
from infra.health import Health
from infra.metrics import Metrics

log = logging.getLogger(__name__)

CONNECTIONS = 16  # concurrent, one thread each
LONGEST_S = 10.0  # per connection, however slowly it sends


class MetricsServer:
    """Serves `/metrics`, `/health/live` and `/health/ready` of one process, in threads. Listens once constructed.

    At most `most` connections are open, each for at most `longest_s` seconds; further ones are closed at once.
    """

    def __init__(self, metrics: Metrics, health: Health, host: str, port: int, most: int, longest_s: float) -> None:
        class Handler(_Handler):
            process_metrics = metrics
            process_health = health
            timeout = longest_s

        self._server = _Bounded((host, port), Handler, most, longest_s)
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(
    metrics: Metrics, health: Health, host: str = "127.0.0.1", port: int = 0, *, most: int = CONNECTIONS, longest_s: float = LONGEST_S
) -> MetricsServer:
    """Serve metrics and health of a worker; port 0 chooses a free one, available as `.port`.

    Raises:
        OSError: the port is taken; choose another with EVERLONG_METRICS_PORT.
    """
    return MetricsServer(metrics, health, host, port, most, longest_s)


def liveness(role: str) -> dict[str, object]:
    """The body of `/health/live`."""
    return {"live": True, "role": role, "version": build().version}


def readiness(role: str, health: Health) -> tuple[int, dict[str, object]]:
    """Status and body of `/health/ready`: 200, or 503 with the reason of each failed condition. Warnings do not change the status."""
    reasons, warnings = health.reasons(), health.warnings()
    body: dict[str, object] = {"ready": not reasons, "role": role, "version": build().version}
    if warnings:
        body["warnings"] = warnings
    return (503, {**body, "reasons": reasons}) if reasons else (200, body)


class _Bounded(ThreadingHTTPServer):
    """A server with one thread per connection, limited in number and time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], most: int, longest_s: float) -> None:
        self._most, self._longest_s = most, longest_s
        self._open: dict[Any, float] = {}  # socket: its deadline
        self._lock = Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            taken = len(self._open) < self._most
            if taken:
                self._open[request] = monotonic() + self._longest_s
        if taken:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called every poll interval: close the connections that exceed their deadline, which ends their threads."""
        with self._lock:
            for request in [request for request, until in self._open.items() if until < monotonic()]:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that disconnects is not an error of the server
            log.error("a scrape failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    process_metrics: Metrics
    process_health: Health
    server_version, sys_version = "everlong", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.process_metrics.registry))
        elif path == "/health/live":
            self._answer_json(200, liveness(self.process_metrics.role))
        elif path == "/health/ready":
            self._answer_json(*readiness(self.process_metrics.role, self.process_health))
        else:
            self._answer_json(404, {"reason": "not_found", "detail": "there are /metrics, /health/live and /health/ready"})

    def _answer_json(self, status: int, body: dict[str, object]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""
