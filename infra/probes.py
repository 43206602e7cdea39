"""The endpoints of a worker that a scraper, an orchestrator and a person on call ask: `/metrics`, `/health/live` and `/health/ready`."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from infra.build import build
from infra.health import Health
from infra.metrics import Metrics


class MetricsServer:
    """`/metrics`, `/health/live` and `/health/ready` of one process, answered in a thread. Listens from the start."""

    def __init__(self, metrics: Metrics, health: Health, host: str, port: int) -> None:
        class Handler(_Handler):
            process_metrics = metrics
            process_health = health

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(metrics: Metrics, health: Health, host: str = "127.0.0.1", port: int = 0) -> MetricsServer:
    """Serve metrics and health of a worker; port 0 takes a free one, found in `.port`.

    Raises:
        OSError: the port is taken; choose another with EVERLONG_METRICS_PORT.
    """
    return MetricsServer(metrics, health, host, port)


def liveness(role: str) -> dict[str, object]:
    """Body of `/health/live`."""
    return {"live": True, "role": role, "version": build().version}


def readiness(role: str, health: Health) -> tuple[int, dict[str, object]]:
    """Status and body of `/health/ready`: 200, or 503 with the reason of each condition that does not hold."""
    reasons = health.reasons()
    body = {"ready": not reasons, "role": role, "version": build().version}
    return (503, {**body, "reasons": reasons}) if reasons else (200, body)


class _Handler(BaseHTTPRequestHandler):
    process_metrics: Metrics
    process_health: Health
    timeout = 10
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
