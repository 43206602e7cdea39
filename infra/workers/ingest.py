"""The ingest worker: clicks, queries and orders into rows of the store, then refresh requests and dead letters."""

import asyncio
from collections import Counter
from typing import Any

import msgspec

from features.events import Topic
from infra.settings import Settings
from infra.wiring import wall_ms
from infra.workers.frame import Frame, Steps, count
from stream.dead_letters import outgoing
from stream.ingest import Ingest, Outcome
from stream.outbound import SENT_HEADER, Outgoing
from stream.topics import BEHAVIOUR, REFRESH


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    frame = Frame("ingest", settings)
    ingest = Ingest(frame.store, wall_ms, settings.time_rules, settings.epoch, settings.cached_events)
    topics = {frame.topic(spec): Topic(spec.name) for spec in BEHAVIOUR}
    refresh = frame.topic(REFRESH)
    applied: dict[tuple[str, int, int], Outcome] = {}  # at most one: a list whose publication failed is published again, not applied again

    async def handle(records: list[Any]) -> None:
        steps = Steps()
        place = records[0].topic, records[0].partition, records[0].offset
        outcome = applied.pop(place, None)
        applied.clear()
        if outcome is None:
            outcome = await asyncio.to_thread(ingest.process, topics[records[0].topic], records)
        steps.done("apply")
        now = wall_ms()
        applied[place] = outcome
        await frame.publish(
            [
                Outgoing(refresh, request.user_id.encode(), msgspec.json.encode(request), None, [(SENT_HEADER, b"%d" % request.sent_ms)])
                for request in outcome.refreshes
            ]
            + [outgoing(letter, settings.topic_prefix) for letter in outcome.dead]
        )
        applied.clear()
        steps.done("publish")
        _measure(frame, topics[records[0].topic], outcome, now)
        frame.metrics.batch("ingest", len(records), steps.seconds)

    frame.read(BEHAVIOUR, handle, in_step=True)
    return frame.run()


def _measure(frame: Frame, topic: Topic, outcome: Outcome, written_ms: int) -> None:
    metrics = frame.metrics
    taken = {name: number for name, number in outcome.counts.items() if name != "dead"}
    count(metrics.events, lambda name: {"topic": topic.value, "outcome": name}, taken)
    count(metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))
    count(metrics.rows_written, lambda name: {"view": name}, outcome.rows_written)
    count(metrics.rows_refused, lambda name: {"view": name}, outcome.rows_refused)
    for request in outcome.refreshes:
        metrics.event_to_feature.observe(max(0, written_ms - request.sent_ms) / 1000)
