"""Limits of the API's connections: how many may be open, and how long one may make no progress."""

import asyncio
import logging
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from uvicorn.protocols.http.auto import AutoHTTPProtocol

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024  # a request line and its headers
SAY_EVERY_S = 60.0


def _closing(status: str, reason: str, detail: str) -> bytes:
    """A complete response that closes the connection."""
    body = msgspec.json.encode({"reason": reason, "detail": detail})
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", "Retry-After: 1"]
    return "\r\n".join([*head, "", ""]).encode() + body


FULL = _closing("503 Service Unavailable", "too_many_connections", "all connections are in use; try again shortly")
SLOW = _closing("408 Request Timeout", "slow_request", "the headers of a request did not arrive in time")
LONG = _closing("431 Request Header Fields Too Large", "headers_too_large", f"the headers are longer than {HEAD_BYTES} bytes")


class ConnectionLimits(NamedTuple):
    """Limits of connections: their number, seconds for a request's headers, and seconds that a response may make no progress."""

    connections: int
    head_s: float
    answer_s: float


class Limited(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol with limits. `infra.http.intake` limits bodies, uvicorn limits idle connections."""

    limits: ConnectionLimits
    said_s = -SAY_EVERY_S

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._say_full()
            self._end(FULL)
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request arrived."""
        if self.transport.is_closing():
            return
        if self._between:
            self._expect_head()
        super().data_received(data)
        if not self._between:
            self._head_bytes = 0
            self._head_timer = _cancel(self._head_timer)
        elif self.cycle is None or not self.cycle.more_body:  # otherwise these are remaining bytes of a body that nothing reads
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._end(LONG)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._head_timer, self._answer_timer = _cancel(self._head_timer), _cancel(self._answer_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than the server writes."""
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self.limits.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._answer_timer = _cancel(self._answer_timer)

    @property
    def _between(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_s, self._end, SLOW)

    def _end(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _say_full(self) -> None:
        kind = type(self)
        if monotonic() - kind.said_s >= SAY_EVERY_S:
            kind.said_s = monotonic()
            log.warning("all %d connections of EVERLONG_API_CONNECTIONS are in use: further ones are refused", self.limits.connections)


def limited_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol with these limits."""
    return type("Limited", (Limited,), {"limits": limits})


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; returns None to replace it."""
    if timer is not None:
        timer.cancel()
    return None
