"""Whether a broker accepts us, and if not, why: errors of the clients become one sentence with the remedy."""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from time import monotonic
from typing import Any

from aiokafka import errors as aio
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kp
from kafka.admin import KafkaAdminClient

from stream.errors import BrokerRefusedError, NotAuthorizedError
from stream.kafka.connection import Connection

GREETING_S = 5.0
_NAMES = "ClusterAuthorizationFailedError", "GroupAuthorizationFailedError", "TopicAuthorizationFailedError"
_DENIALS = tuple(getattr(library, name) for library in (aio, kp) for name in _NAMES)
_NO_TLS = "the port does not speak TLS: set EVERLONG_KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SASL_PLAINTEXT"
_TLS = "the port speaks TLS: set EVERLONG_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"
_ASKS = "the broker asks for a user name and a password: set EVERLONG_KAFKA_SECURITY_PROTOCOL to SASL_{} and EVERLONG_KAFKA_SASL_*"
_SASL = "the broker asks for no user name and password: set EVERLONG_KAFKA_SECURITY_PROTOCOL to {}"
_CERTIFICATE = "the broker does not accept our certificate, or requires one: set EVERLONG_KAFKA_SSL_CERTFILE and EVERLONG_KAFKA_SSL_KEYFILE"


class _ClosedError(Exception):
    """The broker closed the connection; `greeted`: after all handshakes, on the first request."""

    def __init__(self, greeted: bool) -> None:
        super().__init__("the broker closed the connection")
        self.greeted = greeted


def greet(connection: Connection, timeout_s: float = GREETING_S) -> None:
    """Return if one of the brokers answers a request of ours. Blocking.

    Raises:
        BrokerRefusedError: none answered, and one said why: no retry helps.
        OSError: none answered; they may not be up yet.
    """
    end, failures, refusals = monotonic() + timeout_s, [], []
    for host, port in connection.addresses:
        try:
            with ThreadPoolExecutor(1) as thread:  # the caller's may run an event loop
                thread.submit(asyncio.run, _greet(connection, host, port, max(0.5, end - monotonic()))).result()
            return
        except BrokerRefusedError as error:
            refusals.append(error)
        except (OSError, aio.KafkaError, _ClosedError) as error:
            failures.append(f"{host}:{port}: {error}")
    if refusals:
        raise refusals[0]
    raise OSError("; ".join(failures))


@contextmanager
def authorized(connection: Connection, what: str) -> Iterator[None]:
    """Translates a client's error about a missing ACL into one sentence; `what` was tried.

    Raises:
        NotAuthorizedError: instead of the client's error.
    """
    try:
        yield
    except _DENIALS as error:
        raise NotAuthorizedError(_denied(connection, what)) from error


def described(connection: Connection, admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The existing topics by name, as `KafkaAdminClient.describe_topics` returns them. Creates none.

    Raises:
        NotAuthorizedError: we may not know of one of them. (In a list of all topics it would be left out.)
    """
    found = {topic["name"]: topic for topic in (admin.describe_topics(list(topics)) if topics else ())}
    if hidden := sorted(name for name, topic in found.items() if topic["error_code"] == kp.TopicAuthorizationFailedError.errno):
        raise NotAuthorizedError(_denied(connection, f"describe {', '.join(hidden)}"))
    return {name: topic for name, topic in found.items() if topic["error_code"] == 0}


def partitions_of(connection: Connection, consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic; empty if it does not exist.

    Raises:
        NotAuthorizedError: we may not know whether it exists.
    """
    if not (numbers := consumer.partitions_for_topic(topic)):
        with closing(KafkaAdminClient(**connection.for_kafka_python())) as admin:
            described(connection, admin, [topic])
    return [TopicPartition(topic, number) for number in sorted(numbers or ())]


def _denied(connection: Connection, what: str) -> str:
    who = f"Kafka user {connection.sasl_username}" if connection.sasl_username else "our Kafka principal"
    return f"{who} is not allowed to {what}: grant the ACLs of docs/access.md"


async def _greet(connection: Connection, host: str, port: int, timeout_s: float) -> None:
    where = f"{host}:{port}"
    try:
        await asyncio.wait_for(_talk(connection, host, port, timeout_s), timeout_s)
    except (aio.SaslAuthenticationFailed, aio.IllegalSaslStateError, aio.UnsupportedSaslMechanismError) as error:
        raise BrokerRefusedError(f"Kafka at {where}: {_sasl_reason(connection, error)}") from None
    except ssl.SSLCertVerificationError as error:
        raise BrokerRefusedError(f"Kafka at {where}: {_distrust(error, host)}") from error
    except (OSError, _ClosedError) as error:
        if (reason := await _guess(connection, host, port, error)) is not None:
            raise BrokerRefusedError(f"Kafka at {where}: {reason}") from error
        raise


async def _talk(connection: Connection, host: str, port: int, timeout_s: float) -> None:
    """One connection with all its handshakes, and one request."""
    options = {key: value for key, value in connection.for_aiokafka().items() if key != "bootstrap_servers"}
    greeted = False
    client: Any = None
    try:
        client = await create_conn(host, port, request_timeout_ms=int(timeout_s * 1000), **options)
        greeted = True
        await client.send(MetadataRequest([]))
    except aio.KafkaConnectionError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            raise cause from None
        raise _ClosedError(greeted) from error
    finally:
        if client is not None:
            client.close()


def _sasl_reason(connection: Connection, error: Exception) -> str:
    if isinstance(error, aio.IllegalSaslStateError):
        return _SASL.format(connection.security_protocol.removeprefix("SASL_"))
    mechanism = connection.sasl_mechanism or "PLAIN"
    if isinstance(error, aio.UnsupportedSaslMechanismError):
        return f"the broker does not offer the mechanism {mechanism}: set EVERLONG_KAFKA_SASL_MECHANISM to one that it offers"
    return (
        f"the broker refused user {connection.sasl_username} ({mechanism}): check EVERLONG_KAFKA_SASL_USERNAME, "
        "EVERLONG_KAFKA_SASL_PASSWORD and EVERLONG_KAFKA_SASL_MECHANISM"
    )


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code in (62, 64):  # host name, address
        return f"the broker's certificate is for another host name than {host} ({said})"
    if error.verify_code in (9, 10):  # not yet valid, expired
        return f"the broker's certificate is not valid now ({said})"
    return f"the broker's certificate is not trusted ({said}): set EVERLONG_KAFKA_SSL_CAFILE to the authority that signed it"


async def _guess(connection: Connection, host: str, port: int, error: Exception) -> str | None:
    """Why a port that accepts connections refuses us, found by trying other protocols; None if it is just down."""
    tls, closed = connection.ssl_context() is not None, isinstance(error, _ClosedError)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return _CERTIFICATE
    if isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror):
        return None
    if isinstance(error, _ClosedError) and error.greeted:
        return None if connection.security_protocol.startswith("SASL") else _ASKS.format("SSL" if tls else "PLAINTEXT")
    if tls:
        return _NO_TLS if await _speaks(host, port, None) else _CERTIFICATE if closed else None
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    return _TLS if await _speaks(host, port, unverified) else None


async def _speaks(host: str, port: int, context: ssl.SSLContext | None) -> bool:
    """Whether a port accepts TLS as in `context`, or, without a context, answers Kafka's first request in plain text."""
    with suppress(OSError, aio.KafkaError, asyncio.IncompleteReadError):
        if context is None:
            (await asyncio.wait_for(create_conn(host, port, request_timeout_ms=2000), 2)).close()
        else:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=context), 2)
            writer.close()
        return True
    return False
