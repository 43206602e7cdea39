"""Each role works with exactly the rights that docs/access.md lists, and without them says which is missing."""

import asyncio
import time
from contextlib import closing
from threading import Event

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType

from features.events import Click
from features.store import Key
from features.store.opening import open_store
from infra.clock import wall_ms
from stream.errors import NotAuthorizedError
from stream.kafka.admin import create_topics
from stream.kafka.grants import GRANTS, rights
from stream.kafka.producer import Outbound
from stream.kafka.topic_reader import Tail
from stream.kafka.topics import CANDIDATES, CLICKS, DEAD_LETTERS, prefixed
from stream.pipelines.dead_letters import read
from stream.pipelines.replay import record
from tests.broker.reader import reading
from tests.broker.security import PASSWORD
from tests.broker.system import Worker, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def grant(secured, role, prefix):
    """Give the user of a role's name the rights of the role."""
    acls = [
        ACL(
            f"User:{role}", "*", ACLOperation[_shouted(right.operation)], ACLPermissionType.ALLOW,
            ResourcePattern(ResourceType[right.resource.upper()], right.name),
        )
        for right in rights(role, prefix)
    ]  # fmt: skip
    with closing(KafkaAdminClient(**secured.admin.for_kafka_python())) as admin:
        assert not admin.create_acls(acls)["failed"]


def _shouted(operation):
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).strip("_").upper()


def connection(secured, role):
    return secured.connection("SASL_PLAINTEXT", sasl_username=role)


@pytest.fixture
def topics(secured, prefix):
    """All topics, and every role with its rights."""
    create_topics(secured.admin, prefix, partitions=1, replication=1)
    for role in ("ingest", "catalogue", "refresh", "api"):
        grant(secured, role, prefix)
    return prefix


def test_the_clients_of_each_role_need_no_more_rights(secured, topics):
    async def work(role):
        """Read each topic of the role, as a group and as a tail, and write to each."""
        own, grants = connection(secured, role), GRANTS[role]
        await asyncio.to_thread(create_topics, own, topics, 1, 1, grants.topics)
        outbound = Outbound(own)
        await outbound.publish([(prefixed(topics, spec), b"k", b"v", None, None) for spec in grants.writes])
        await outbound.stop()
        for spec in grants.reads:
            tail = Tail(own, prefixed(topics, spec), lambda records, places: None)
            tail.start()
            await asyncio.to_thread(tail.catch_up, Event(), 60)
            await asyncio.to_thread(tail.stop)
        if grants.grouped:
            async with reading(own, f"{topics}everlong-{role}", [prefixed(topics, spec) for spec in grants.reads]) as reader:
                await reader.until(lambda: len(reader.app.progress.partitions()) == len(grants.reads))

    async def main():
        await asyncio.gather(*(work(role) for role in ("ingest", "catalogue", "refresh", "api")))

    asyncio.run(main())


@pytest.mark.fault(
    "A Kafka user with exactly the rights listed in docs/access.md",
    "The role works, and an error names any topic that the user may not read",
)
def test_an_ingest_worker_works_with_its_rights_and_reads_nothing_else(secured, topics, tmp_path):
    own, url = connection(secured, "ingest"), f"sqlite:///{tmp_path}/rows.db"
    settings = {
        "kafka_bootstrap": own.bootstrap, "kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "ingest", "kafka_sasl_password": PASSWORD, "store_url": url, "topic_prefix": topics, "partitions": 1,
        "metrics_port": 0,
    }  # fmt: skip
    click = Click(event_id="e", user_id="u", item_id="i", category_id="c", ts=int(time.time() * 1000))

    async def send():
        outbound = Outbound(connection(secured, "api"))
        await outbound.publish([record(click, wall_ms(), topics), (prefixed(topics, CLICKS), b"u", b"{", None, None)])
        await outbound.stop()

    worker = Worker("ingest", tmp_path, "ingest", **settings).start()
    try:
        asyncio.run(send())
        with closing(open_store(url)) as store:
            wait_for(lambda: store.read([Key("user", ("u",))])[0] is not None, 90, "the row", worker.log)
        letters = prefixed(topics, DEAD_LETTERS)
        wait_for(lambda: [found.letter.reason for found in read(secured.admin, letters)] == ["bad_json"], 60, "the dead letter", worker.log)
        assert worker.stop() == 0, worker.log()
    finally:
        worker.end()
    for spec in (DEAD_LETTERS, CANDIDATES):
        with pytest.raises(NotAuthorizedError, match=f"user ingest is not allowed to .*{prefixed(topics, spec)}"):
            list(read(own, prefixed(topics, spec)))
