"""A real Apache Kafka for the tests of this folder, and names that no other test uses.

Taken in this order: the brokers of EVERLONG_TEST_KAFKA ("host:port,..."), a container, the processes of ../shared/kafka beside the
repository. With none of them the tests skip, or fail where REQUIRE_KAFKA=1.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stream.kafka.admin import wait_for_broker
from stream.kafka.connection import Connection
from tests.beside import SHARED, lacking
from tests.broker.security import Secured, certificates, security

IMAGE = "apache/kafka:4.1.1"
SCRIPT = SHARED / "kafka" / "kafka"
REMEDY = f"start one and set EVERLONG_TEST_KAFKA=host:port, or start Docker (image {IMAGE})"


class OwnKafka:
    """A broker of this test run, that may be killed."""

    def __init__(self, connection: Connection, kill: Callable[[], None]) -> None:
        self.connection = connection
        self.kill = kill


@pytest.fixture(scope="session")
def kafka() -> Iterator[Connection]:
    """A broker for all tests."""
    if given := os.environ.get("EVERLONG_TEST_KAFKA"):
        connection = Connection(bootstrap=given)
        wait_for_broker(connection, 20)
        yield connection
        return
    with _start() as own:
        yield own.connection


@pytest.fixture
def own_kafka() -> Iterator[OwnKafka]:
    """A broker for this test alone, that it may kill."""
    with _start() as own:
        yield own


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with TLS, users and an authorizer."""
    if not SCRIPT.exists() or shutil.which("openssl") is None:
        lacking("KAFKA", f"needs {SCRIPT} and openssl, to start an Apache Kafka with TLS and users")
    folder = tmp_path_factory.mktemp("certificates")
    authority, client = certificates(folder)
    ports = {protocol: free_port() for protocol in ("SASL_PLAINTEXT", "SSL", "SASL_SSL")}
    with _process(*security(folder, ports)) as own:
        yield Secured(own.connection, ports, authority, client)


@pytest.fixture
def prefix() -> str:
    """A prefix of topics that no other test uses."""
    return f"t-{uuid.uuid4().hex[:8]}."


@pytest.fixture
def group() -> str:
    """A consumer group that no other test uses."""
    return f"g-{uuid.uuid4().hex[:8]}"


@contextmanager
def _start() -> Iterator[OwnKafka]:
    if _docker_answers():
        with _container() as own:
            yield own
    elif SCRIPT.exists():
        with _process() as own:
            yield own
    else:
        lacking("KAFKA", f"needs a real Apache Kafka: {REMEDY}")


def _docker_answers() -> bool:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    if (docker := shutil.which("docker")) is None:
        return "DOCKER_HOST" in os.environ
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run([docker, "info"], capture_output=True, timeout=10).returncode == 0
    return False


@contextmanager
def _container() -> Iterator[OwnKafka]:
    from testcontainers.core.container import DockerContainer

    port = free_port()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "OUTSIDE://:9092,INSIDE://localhost:9094,CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"OUTSIDE://127.0.0.1:{port},INSIDE://localhost:9094",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",  # transactions are verified through it: it must be reachable in the container
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    for name, value in settings.items():
        container.with_env(name, value)
    container.start()
    try:
        connection = Connection(bootstrap=f"127.0.0.1:{port}")
        wait_for_broker(connection, 60)
        yield OwnKafka(connection, lambda: container.get_wrapped_container().kill())
    finally:
        container.stop()


@contextmanager
def _process(*settings: str) -> Iterator[OwnKafka]:
    """A broker of ../shared/kafka, with `key=value` in its configuration."""
    directory = tempfile.mkdtemp(prefix="everlong-kafka-")
    port = free_port()
    script = [sys.executable, str(SCRIPT)]
    try:
        start = [*script, "start", "--dir", directory, "--port", str(port), *(word for pair in settings for word in ("--set", pair))]
        started = subprocess.run(
            [part.replace("{port}", str(port)).replace("{controller}", str(port + 1)) for part in start],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert started.returncode == 0, started.stderr
        connection = Connection(bootstrap=f"127.0.0.1:{port}")
        wait_for_broker(connection, 30)
        yield OwnKafka(connection, lambda: _kill(directory))
    finally:
        subprocess.run([*script, "stop", "--dir", directory], capture_output=True, timeout=60)
        shutil.rmtree(directory, ignore_errors=True)


def _kill(directory: str) -> None:
    os.kill(int((Path(directory) / "broker-1.pid").read_text()), signal.SIGKILL)


def free_port() -> int:
    """A port below the range of clients' own sockets, that nobody listens on; so is the one above it (Kafka's controller)."""
    for port in random.sample(range(21_000, 32_000, 2), 200):
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port
    raise OSError("no free port between 21000 and 32000")
