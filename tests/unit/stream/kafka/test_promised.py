"""Which topics fall short of what our promises need."""

import pytest

from stream.kafka.promised import TopicState, differences, settings
from stream.kafka.topics import ALL, CLICKS, ITEMS, REFRESH


def standing(topic, replication=3, partitions=4):
    return TopicState(topic.name, topic.partitions or partitions, replication, settings(topic, replication))


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
@pytest.mark.parametrize("replication", [1, 3])
def test_a_topic_that_we_made_is_right(topic, replication):
    assert differences(topic, standing(topic, replication), 4, replication) == []


@pytest.mark.parametrize(
    ("topic", "changed", "setting"),
    [
        (CLICKS, {"retention.ms": "604800000"}, "retention.ms"),
        (CLICKS, {"retention.bytes": "1000000"}, "retention.bytes"),
        (CLICKS, {"cleanup.policy": "compact"}, "cleanup.policy"),
        (CLICKS, {"cleanup.policy": "compact,delete"}, "cleanup.policy"),
        (CLICKS, {"min.insync.replicas": "1"}, "min.insync.replicas"),
        (CLICKS, {"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable"),
        (CLICKS, {"max.message.bytes": "1000"}, "max.message.bytes"),
        (ITEMS, {"cleanup.policy": "delete"}, "cleanup.policy"),
        (ITEMS, {"delete.retention.ms": "86400000"}, "delete.retention.ms"),
        (REFRESH, {"retention.ms": "3600000"}, "retention.ms"),
    ],
)
def test_what_falls_short_is_named(topic, changed, setting):
    [found] = differences(topic, TopicState("t", 4, 3, settings(topic, 3) | changed), 4, 3)
    assert (found.setting, found.found, found.alterable) == (setting, changed[setting], True)


def test_more_than_needed_is_right():
    more = {"retention.ms": "-1", "max.message.bytes": "9000000", "min.insync.replicas": "3"}
    assert differences(REFRESH, TopicState("t", 4, 5, settings(REFRESH, 3) | more), 4, 3) == []


def test_partitions_copies_and_hidden_settings_cannot_be_set():
    assert [(d.setting, d.alterable) for d in differences(CLICKS, TopicState("t", 2, 1, {}), 4, 3)] == [
        ("partitions", False),
        ("replication factor", False),
        ("settings", False),
    ]
