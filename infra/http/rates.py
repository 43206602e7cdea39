"""Rate limits: one token bucket per client, in a bounded table."""

import math
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from time import monotonic

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.http.guard import PROBED

CLIENTS = 10_000  # the maximum; beyond it the least recently seen client is dropped, and starts again with a full bucket
BURST_S = 2.0  # a burst is as many requests as the rate allows in this time
IPV6_NETWORK = 64  # bits: the usual network of one customer


class Rates:
    """Token buckets: each allows `per_s` requests per second, and bursts of `BURST_S` seconds' worth. Not thread-safe.

    Args:
        per_s: requests per second and client.
        clients: maximum number of clients in the table.
        clock_s: a monotonic clock, seconds.
    """

    def __init__(self, per_s: float, clients: int = CLIENTS, clock_s: Callable[[], float] = monotonic) -> None:
        self._per_s, self._most, self._clock_s = per_s, clients, clock_s
        self._full = max(1.0, per_s * BURST_S)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and the time of that count

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, client: str) -> float:
        """0 if the client may send a request now, which is then counted; else the seconds until it may."""
        now = self._clock_s()
        left, then = self._buckets.pop(client, (self._full, now))
        left = min(self._full, left + (now - then) * self._per_s)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_s


class RateLimit:
    """ASGI middleware: responds with 429 to a client above its rate. Probes and scrapes are not counted."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app, self._rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        wait_s = 0.0 if scope["type"] != "http" or scope["path"] in PROBED else self._rates.wait_s(client_of(scope))
        if not wait_s:
            await self._app(scope, receive, send)
            return
        detail = "too many requests from this address; EVERLONG_API_RATE sets the limit per second"
        headers = {"Retry-After": str(math.ceil(wait_s))}
        await JSONResponse({"reason": "too_many_requests", "detail": detail}, 429, headers)(scope, receive, send)


def client_of(scope: Scope) -> str:
    """The address of a request's sender; for IPv6 its network, since one customer has many addresses."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return str(host)
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, IPV6_NETWORK), strict=False))
