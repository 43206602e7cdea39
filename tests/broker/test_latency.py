"""The latency meter on Apache Kafka: it sees the candidate set that answers an event."""

import asyncio

import msgspec
import pytest

from features.events import Click
from infra.clock import wall_ms
from infra.demo.latency import Latency
from stream.kafka.admin import create_topics
from stream.kafka.connection import Connection
from stream.kafka.messages import CandidateSet
from stream.kafka.producer import Outbound, Outgoing
from stream.kafka.topics import CANDIDATES, prefixed

pytestmark = pytest.mark.broker


async def measured(kafka: Connection, prefix: str) -> Latency:
    now = wall_ms()
    click = Click(event_id="e1", user_id="u1", item_id="i1", category_id="c1", ts=now)
    found = CandidateSet(user_id="u1", candidates=[], level="popular", generation="", event_ts=now, published_ts=now)
    outbound = Outbound(kafka)
    async with Latency(kafka, prefix) as latency:
        latency.sent([click], now)
        await outbound.publish([Outgoing(prefixed(prefix, CANDIDATES), b"u1", msgspec.json.encode(found))])
        async with asyncio.timeout(60):
            while latency.unanswered:
                await asyncio.sleep(0.01)
    await outbound.stop()
    return latency


def test_a_set_answers_the_events_before_it(kafka: Connection, prefix: str) -> None:
    create_topics(kafka, prefix, 2, 1)
    latency = asyncio.run(measured(kafka, prefix))
    assert latency.sets == 1
    assert latency.quantile_ms(0.5) is not None
