"""Events received over HTTP: read within a limit, split, decoded as strictly as others, and published as Kafka records."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
from starlette.requests import Request

from features.event_time import TimeRules
from features.events import Event, Topic, decode
from infra.errors import RequestError
from stream.pipelines.replay import Record, record


class Publisher(Protocol):
    """Publishes records to the broker (stream.kafka.producer)."""

    async def publish(self, records: Sequence[Record]) -> object:
        """Send the records and wait until the broker has acknowledged all of them.

        Raises:
            PublishError: it has not; each record may or may not be on its topic.
        """
        ...


class Sent(NamedTuple):
    """An event and its topic."""

    topic: Topic
    event: Event


class _Addressed(msgspec.Struct):
    topic: str | None = None


_split = msgspec.json.Decoder(list[msgspec.Raw])
_address = msgspec.json.Decoder(_Addressed)


async def read_body(request: Request, limit: int, timeout_s: float) -> bytes:
    """The body of a JSON request, never more than `limit` bytes in memory.

    Raises:
        RequestError: 415 for another content type (so that other web pages cannot send it), 413 for a longer body, 408 for one that
            takes more than `timeout_s` seconds.
        ClientDisconnect: the client disconnected.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, "not_json", "send Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise RequestError(413, "body_too_large", f"the body is longer than {limit} bytes; send fewer events at once")
    except TimeoutError:
        raise RequestError(408, "slow_body", f"the body did not arrive within {timeout_s:g} s") from None
    return bytes(body)


def parse(body: bytes, topic: Topic | None, now_ms: int, rules: TimeRules, most: int) -> list[Sent]:
    """The events in a body: one JSON object or a list of them, all valid. Each names its `topic` unless the path does.

    Raises:
        RequestError: 400 for invalid JSON or a value that is not an event, 413 for more than `most` events, 422 with the position
            and reason of each invalid event; then none is sent.
    """
    try:
        payloads = _split.decode(body) if body.lstrip()[:1] == b"[" else [msgspec.json.decode(body, type=msgspec.Raw)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "bad_json", f"the body is not a JSON object or a list of objects: {error}") from error
    if not payloads:
        raise RequestError(400, "empty", "the list contains no event")
    if len(payloads) > most:
        raise RequestError(413, "too_many_events", f"{len(payloads)} events, more than {most}; send fewer at once")
    good: list[Sent] = []
    errors: list[dict[str, object]] = []
    for position, payload in enumerate(payloads):
        try:
            good.append(_parse_one(bytes(payload), topic, now_ms, rules))
        except RequestError as wrong:
            errors.append({"position": position, "reason": wrong.reason, "detail": wrong.detail})
    if errors:
        first = errors[0]
        raise RequestError(422, "refused", f"event {first['position']}: {first['detail']}; no event of this request was accepted", errors)
    return good


def records_of(sent: Sequence[Sent], prefix: str, now_ms: int) -> list[Record]:
    """The events as records: with the topic's key, the event time as time stamp, and the time of sending in a header."""
    return [record(event, now_ms, prefix) for _, event in sent]


def count(sent: Sequence[Sent]) -> dict[str, int]:
    """Events by topic."""
    return dict(Counter(str(topic) for topic, _ in sent))


def _parse_one(payload: bytes, topic: Topic | None, now_ms: int, rules: TimeRules) -> Sent:
    if topic is None:
        topic = _topic_of(payload)
    decoded = decode(topic, [payload], now_ms, rules)
    if decoded.bad:
        raise RequestError(422, str(decoded.bad[0].reason), decoded.bad[0].detail)
    return Sent(topic, decoded.good[0][1])


def _topic_of(payload: bytes) -> Topic:
    try:
        return Topic(_address.decode(payload).topic or "")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        choices = ", ".join(Topic)
        raise RequestError(422, "no_topic", f'the event needs "topic", one of {choices}; or post to /v1/events/TOPIC') from None
