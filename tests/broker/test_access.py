"""Each role works with exactly the rights that docs/access.md lists, and without them says which is missing."""

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from threading import Event

import pytest
import redis
from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType

from features.codec import unpack
from features.events import Click, Item
from features.outcomes import CandidatesRow
from features.store import Key
from features.store.opening import open_store
from features.store.redis import COMMANDS
from infra.clock import wall_ms
from infra.local.embedded import free_port
from models.bundle import save
from stream.errors import NotAuthorizedError
from stream.kafka.admin import create_topics
from stream.kafka.grants import GRANTS, rights
from stream.kafka.producer import Outbound
from stream.kafka.topic_reader import TopicReader
from stream.kafka.topics import CANDIDATES, CLICKS, DEAD_LETTERS, prefixed
from stream.pipelines.dead_letters import read
from stream.pipelines.replay import record
from tests.broker.reader import reading
from tests.broker.security import PASSWORD
from tests.broker.system import Worker, ready, valkey, wait_for
from tests.tiny_bundle import quickly_trained

STORE_RIGHTS = [f"+{command}" for command in COMMANDS]

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


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


def publish(own, records):
    """Publish records as the user of a connection."""

    async def main():
        outbound = Outbound(own)
        await outbound.publish(records)
        await outbound.stop()

    asyncio.run(main())


def command(*words, **settings):
    """Run `everlong` with these settings."""
    environment = os.environ | {f"EVERLONG_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


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
            tail = TopicReader(own, prefixed(topics, spec), lambda records, places: None)
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
    "A Kafka user per role, and a store user, with exactly the rights listed in docs/access.md",
    "Every role works, and an error names any topic that the user may not read",
)
def test_each_process_works_with_its_rights_and_reads_nothing_else(secured, prefix, tmp_path):
    for role in GRANTS:
        grant(secured, role, prefix)
    with valkey(tmp_path) as url, redis.Redis.from_url(url) as admin:
        admin.execute_command("ACL", "SETUSER", "everlong", "reset", "on", ">pw", "resetchannels", "~*", "-@all", *STORE_RIGHTS)
        limited = f"redis://everlong:pw@{url.rpartition('@')[2]}"
        common = {
            "kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_password": PASSWORD,
            "kafka_bootstrap": connection(secured, "api").bootstrap, "store_url": limited, "topic_prefix": prefix, "partitions": 1,
            "bundle": save(quickly_trained(0), tmp_path / "bundle"), "data_dir": tmp_path / "data",
        }  # fmt: skip
        made = command("topics", **common, kafka_sasl_username="operator")
        assert made.returncode == 0, made.stderr
        ports = {role: free_port() for role in ("ingest", "catalogue", "refresh")}
        workers = [
            Worker(role, tmp_path, role, **common, kafka_sasl_username=role, metrics_port=port).start() for role, port in ports.items()
        ]
        log = "".join
        try:
            for port, worker in zip(ports.values(), workers, strict=True):
                wait_for(lambda port=port: ready(port), 120, "a ready worker", worker.log)
            now = wall_ms()
            click = Click(event_id="e", user_id="u", item_id="i0-0", category_id="c0", ts=now)
            item = Item(item_id="new", category_id="c0", title="red thing of 0", ts=now)
            bad = (prefixed(prefix, CLICKS), b"u", b"{", None, None)
            publish(connection(secured, "api"), [record(click, now, prefix), record(item, now, prefix), bad])
            keys = [Key("user_candidates", ("u",)), Key("item", ("new",))]
            with closing(open_store(limited)) as store:
                wait_for(lambda: None not in store.read(keys), 90, "candidates and the item", lambda: log(w.log() for w in workers))
                level = unpack(CandidatesRow, store.read(keys)[0].packed).level
            letters = prefixed(prefix, DEAD_LETTERS)
            operator = connection(secured, "operator")
            wait_for(lambda: [found.letter.reason for found in read(operator, letters)] == ["bad_json"], 60, "the dead letter")
            answered = command("codes", "status", "--json", **common, kafka_sasl_username="operator")
            assert answered.returncode == 0, answered.stderr
            assert [worker.stop() for worker in workers] == [0, 0, 0], log(worker.log() for worker in workers)
        finally:
            for worker in workers:
                worker.end()
    assert level == "full"
    for spec in (DEAD_LETTERS, CANDIDATES):
        with pytest.raises(NotAuthorizedError, match=f"user ingest is not allowed to .*{prefixed(prefix, spec)}"):
            list(read(connection(secured, "ingest"), prefixed(prefix, spec)))
