"""Middleware around every route of the API: allowed hosts, security headers, request metrics, and the page's content security policy."""

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from time import perf_counter
from urllib.parse import quote, unquote, urlsplit

from starlette.convertors import Convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.metrics import ApiMetrics

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

CLIENT_CLOSED = 499  # nginx's status for a client that disconnected before the response
PROBED = ("/health/live", "/health/ready", "/metrics")  # probes and scrapes name an address, not a host


class Hosts:
    """ASGI middleware: refuses requests for other hosts. `*.shop.example` matches any subdomain. PROBED paths accept any host."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names if not name.startswith("*.")}
        self._below = tuple(name.lower().removeprefix("*") for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in PROBED or self._answers(given := Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        detail = f"the API does not accept the host {given!r}: EVERLONG_API_ALLOWED_HOSTS lists the accepted hosts"
        await JSONResponse({"reason": "unknown_host", "detail": detail}, 400)(scope, receive, send)

    def _answers(self, given: str) -> bool:
        try:
            name = urlsplit(f"//{given}").hostname or ""
        except ValueError:
            return False
        return name in self._names or name.endswith(self._below)


class EncodedPaths:
    """ASGI middleware: routes match the path as sent, so that %2F inside an id does not separate path segments. See `Encoded`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if raw := scope.get("raw_path"):
            scope["path"] = raw.decode("ascii", "replace")
        await self._app(scope, receive, send)


class Encoded(Convertor[str]):
    """An id in a path: percent-encoded, one segment or more."""

    regex = ".+"

    def convert(self, value: str) -> str:
        """The decoded id."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """The id encoded for a path."""
        return quote(value, safe="")


class Guard:
    """ASGI middleware: adds HEADERS that a route has not set, and counts and times requests by route."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path_format", "unmatched")
            self._metrics.requests.labels(route, "client_closed" if status == CLIENT_CLOSED else str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(perf_counter() - started)


def page_policy(page: str) -> str:
    """A content security policy that allows only the page's own script and style, and connections only to its server."""
    sources = {tag: " ".join(_hashes(tag, page)) or "'none'" for tag in ("script", "style")}
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hashes(tag: str, page: str) -> list[str]:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]
