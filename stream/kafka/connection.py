"""How to reach the broker: one value with the arguments of each Kafka library, and consumers made from it."""

import asyncio
import ssl
from time import monotonic
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest
from faust import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT
from kafka import KafkaConsumer

from stream.errors import BrokerRefusedError

ISOLATION = "read_committed"  # of every consumer: the records of an aborted transaction never happened
IDLE_S = 0.015  # the shortest time of an empty fetch


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Address of the brokers ("host:port,host:port") and credentials. Printing it hides the password.

    `security_protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; `sasl_mechanism` PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields that are set, with the password masked."""
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "***" if name == "sasl_password" else value) for name, value in fields if value is not None]

    def __repr__(self) -> str:
        return f"Connection({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__

    @property
    def servers(self) -> list[str]:
        """The brokers' addresses, "host:port" each."""
        return [server.strip() for server in self.bootstrap.split(",") if server.strip()]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The same as (host, port)."""
        parted = [server.rpartition(":") for server in self.servers]
        return [(host.strip("[]"), int(port)) for host, _, port in parted]

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context that verifies the brokers and presents our certificate; None if the protocol has no TLS.

        Raises:
            BrokerRefusedError: a file of certificates or of the key cannot be used.
        """
        if "SSL" not in self.security_protocol.split("_"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except OSError as error:
            raise BrokerRefusedError(f"EVERLONG_KAFKA_SSL_CAFILE={self.ssl_cafile} holds no certificates: {_why(error)}") from error
        if self.ssl_certfile is not None:
            try:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password=str)  # an encrypted key would ask the terminal
            except OSError as error:
                files = f"EVERLONG_KAFKA_SSL_CERTFILE={self.ssl_certfile} and EVERLONG_KAFKA_SSL_KEYFILE={self.ssl_keyfile}"
                raise BrokerRefusedError(f"{files} are no certificate with its key, unencrypted and in PEM: {_why(error)}") from error
        return context

    def for_kafka_python(self) -> dict[str, Any]:
        """Keyword arguments of every client of kafka-python."""
        return self._client()

    def for_aiokafka(self) -> dict[str, Any]:
        """Keyword arguments of every client of aiokafka."""
        return self._client()

    def consumer(self, *topics: str, **options: Any) -> KafkaConsumer:
        """A consumer of kafka-python: committed records only, from the start of the log unless `options` differ; it commits no offsets."""
        chosen = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": ISOLATION, **options}
        return KafkaConsumer(*topics, **self.for_kafka_python(), **chosen)

    def async_consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        """The same of aiokafka, to be started in the running event loop."""
        chosen = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": ISOLATION, **options}
        return AIOKafkaConsumer(*topics, **self.for_aiokafka(), **chosen)

    def faust_broker(self) -> str:
        """The `broker` setting of Faust."""
        return ";".join(f"kafka://{server}" for server in self.servers)

    def faust_credentials(self) -> CredentialsT | None:
        """The `broker_credentials` setting of Faust, None for PLAINTEXT."""
        context = self.ssl_context()
        if self.security_protocol.startswith("SASL"):
            return SASLCredentials(
                username=self.sasl_username, password=self.sasl_password, ssl_context=context, mechanism=self.sasl_mechanism or "PLAIN"
            )
        return SSLCredentials(context) if context is not None else None

    def _client(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security_protocol}
        if (context := self.ssl_context()) is not None:
            arguments["ssl_context"] = context
        if self.security_protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.sasl_mechanism or "PLAIN"
            arguments["sasl_plain_username"] = self.sasl_username
            arguments["sasl_plain_password"] = self.sasl_password
        return arguments


def _why(error: OSError) -> str:
    return (getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else error.strerror) or str(error)


def pace(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """The consumer, not yet started, with empty fetches slowed down to IDLE_S.

    Kafka holds a fetch until there are records. noida-db answers it at once, and a consumer then sends over a thousand fetches per second,
    which costs both of them half a core.
    """
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
