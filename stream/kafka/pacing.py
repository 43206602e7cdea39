"""Keeps consumers from spinning on a broker that answers an empty fetch at once.

Kafka holds a fetch until there is something to read; noida-db answers immediately, and a consumer then asks over a
thousand times a second, which costs both of them half a core. An empty answer that came early is held back here.
"""

import asyncio
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest

IDLE_S = 0.015  # how long an empty answer takes at least: what an idle consumer may be late


def pace(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """The consumer, asking at most every IDLE_S while there is nothing to read. Before it starts."""
    client = consumer._client
    send = client.send

    async def paced(node_id: Any, request: Any, **options: Any) -> Any:
        began = monotonic()
        response = await send(node_id, request, **options)
        if isinstance(request, FetchRequest) and not _holds_records(response):
            await asyncio.sleep(max(0.0, began + IDLE_S - monotonic()))
        return response

    client.send = paced
    return consumer


def _holds_records(response: Any) -> bool:
    """Whether any partition of a fetch response has bytes of records: the last field of each."""
    return any(partition[-1] for _, partitions in response.topics for partition in partitions)
