"""Records that cannot be used, on real Kafka: the worker goes on, and what can be sent again is not lost."""

import pytest

from features.events import Click
from infra.clock import wall_ms
from stream.dead_letters import Wanted, read, replay
from stream.outbound import Outgoing
from stream.partitioning import partition_of
from stream.replay import record
from stream.topics import CLICKS, DEAD_LETTERS, prefixed
from tests.broker.system import differing, running, wait_for

PARTITIONS = 4

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def test_large_records_null_headers_and_wrong_partitions_end_no_worker(kafka, prefix, tmp_path):
    now = wall_ms()
    events = [Click(event_id=f"e{n}", user_id=f"u{n % 10}", item_id=f"i{n}", category_id="c", ts=now - 1000 + n) for n in range(200)]
    sent = [record(event, now, prefix) for event in events]
    sent[:50] = [one._replace(headers=[("sent_ms", None)]) for one in sent[:50]]
    sent[100:] = [one._replace(partition=(partition_of(one.key, PARTITIONS) + 1) % PARTITIONS) for one in sent[100:]]
    clicks, letters = prefixed(prefix, CLICKS), prefixed(prefix, DEAD_LETTERS)
    sent += [Outgoing(clicks, b"u1", b"x" * 1_000_000), Outgoing(clicks, b"k" * 500_000, b"x" * 500_000)]

    def dead(reason):
        return [found.letter for found in read(kafka, letters, Wanted(reason=reason))]

    def applied(count):
        return lambda: system.samples().total("everlong_events_total", topic="clicks", outcome="applied") >= count

    with running(kafka, prefix, tmp_path, "ingest") as system:
        system.send_by(lambda publish: publish(sent))
        wait_for(lambda: len(dead("oversized")) == 2 and len(dead("wrong_partition")) == 100, 60, "the dead letters", system.logs)
        assert all(letter.cut_bytes for letter in dead("oversized"))
        wait_for(applied(100), 60, "the events that can be used", system.logs)
        assert replay(kafka, dead("wrong_partition"), wall_ms()) == 100
        wait_for(applied(200), 60, "the events that were sent again", system.logs)
        assert differing(system.store, events) == (20, [])
        assert len(dead("wrong_partition")) == 100
