"""The broker's address and secrets, as each Kafka library wants them; publishing and waiting without a broker."""

import ast
import asyncio
import ssl
import time

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, NotLeaderForPartitionError
from faust.types.auth import AuthProtocol
from rich.pretty import pretty_repr

from stream.errors import BrokerUnavailableError, PublishError
from stream.kafka.admin import wait_for_broker
from stream.kafka.connection import Connection
from stream.kafka.messages import sent_header, sent_ms
from stream.kafka.producer import Outbound, outage
from tests.beside import ROOT

NOBODY = Connection(bootstrap="127.0.0.1:1")


def test_plain():
    connection = Connection(bootstrap="one:9092, two:9093")
    assert connection.for_aiokafka() == {"bootstrap_servers": ["one:9092", "two:9093"], "security_protocol": "PLAINTEXT"}
    assert connection.faust_broker() == "kafka://one:9092;kafka://two:9093"
    assert connection.faust_credentials() is None


def test_sasl_over_tls_and_the_password_is_not_printed():
    connection = Connection(
        bootstrap="one:9092", security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256", sasl_username="me", sasl_password="secret"
    )
    arguments = connection.for_kafka_python()
    assert arguments["sasl_plain_password"] == "secret"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
    assert isinstance(arguments["ssl_context"], ssl.SSLContext)
    credentials = connection.faust_credentials()
    assert credentials.protocol == AuthProtocol.SASL_SSL
    for shown in (repr(connection), str(connection), f"{connection}", pretty_repr(connection)):
        assert "secret" not in shown
        assert "one:9092" in shown
        assert "me" in shown


def test_tls_without_sasl():
    connection = Connection(bootstrap="one:9092", security_protocol="SSL")
    assert connection.faust_credentials().protocol == AuthProtocol.SSL
    assert "sasl_mechanism" not in connection.for_aiokafka()


def test_no_broker_is_said_in_time():
    with pytest.raises(BrokerUnavailableError, match="EVERLONG_KAFKA_BOOTSTRAP"):
        wait_for_broker(NOBODY, 0.3)


def test_publishing_without_a_broker_fails_and_publishing_nothing_does_not():
    async def main():
        outbound = Outbound(NOBODY, give_up_after_s=1.0)
        await outbound.publish([])
        with pytest.raises(PublishError):
            await outbound.publish([("topic", b"k", b"v", None, None)])
        await outbound.stop()

    asyncio.run(main())


def test_what_is_an_outage():
    assert outage(KafkaTimeoutError())
    assert outage(NotLeaderForPartitionError())
    assert not outage(MessageSizeTooLargeError())
    assert not outage(ValueError())


@pytest.mark.parametrize("value", [None, b"", b"x", b"-1", b"1" * 30, b"\xff", "\u0663".encode()])
def test_a_wrong_header_says_nothing(value):
    assert sent_ms([("other", b"1"), ("sent_ms", value)], 5) == 5


def test_the_sent_header_is_a_round_trip():
    assert sent_ms([sent_header(1234)], 5) == 1234
    before = int(time.time() * 1000)
    assert before <= sent_ms([sent_header()], 0) <= time.time() * 1000


def test_every_consumer_is_made_here_and_so_reads_what_is_committed():
    made = set()
    for path in [path for folder in ("features", "models", "stream", "infra", "research") for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("KafkaConsumer", "AIOKafkaConsumer"):
                made.add(path.relative_to(ROOT).as_posix())
    assert made == {"stream/kafka/connection.py"}
