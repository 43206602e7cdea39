"""The API as a process: creates its parts from settings, runs uvicorn, and checks store and broker for readiness."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from threading import Event, Thread

import uvicorn
from fastapi import FastAPI
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from features.errors import StoreUnavailableError
from features.store import OnlineStore
from infra.health import Health, away
from infra.http.api import make_api
from infra.http.connections import ConnectionLimits, limited_protocol
from infra.http.popularity import Popularity
from infra.metrics import ApiMetrics
from infra.settings import Settings
from infra.wiring import PROBE, connection, open_online_store
from stream.errors import PublishError
from stream.kafka.access import greet
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound
from stream.kafka.topic_reader import READING
from stream.kafka.topics import CANDIDATES, prefixed

log = logging.getLogger(__name__)

START_S = 120.0
CHECK_S = 2.0
SHOWN_USERS = 20
FETCH_BYTES = 256 * 1024  # of the topic of candidate sets, of which only the key is read


def run(settings: Settings) -> int:
    """Serve until a signal; the exit code.

    Raises:
        UnprotectedApiError: other machines can reach the address, and there are no tokens.
        StoreUnavailableError: the store did not answer within START_S.
    """
    settings.check_access()
    broker = connection(settings)
    with suppress(OSError):  # reads work without a broker, but a broker that refuses the credentials is a configuration error
        greet(broker)
    store = open_online_store(settings, START_S)
    health = Health("store", "broker")
    metrics = ApiMetrics()
    outbound = Outbound(broker)
    recent = RecentUsers(broker, prefixed(settings.topic_prefix, CANDIDATES))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        checking = asyncio.create_task(_check(store, outbound, health))
        if settings.api_list_users:
            recent.start()
        yield
        checking.cancel()
        with suppress(asyncio.CancelledError):
            await checking
        await outbound.stop()
        recent.stop()
        store.close()

    popular = Popularity(settings.bundle_path)
    app = make_api(store, outbound, metrics, health, settings, fallback=popular.best, users=recent.newest, lifespan=lifespan)
    log.info("the page is at http://%s:%d%s", settings.http_host, settings.http_port, " (it asks for a token)" * settings.has_tokens)
    server = make_server(app, settings)
    server.run()
    return 0 if server.started else 1


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """The server of an application, with the limits in the settings."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are caused by clients, so they could fill the disk
    limits = ConnectionLimits(settings.api_connections, settings.api_head_timeout_s, settings.api_body_timeout_s)
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        http=limited_protocol(limits),
        ws="none",
        timeout_keep_alive=settings.api_idle_timeout_s,
        proxy_headers=bool(settings.api_trusted_proxies),
        forwarded_allow_ips=list(settings.api_trusted_proxies),
        server_header=False,
        access_log=False,
        log_config=None,
    )
    return uvicorn.Server(config)


async def _check(store: OnlineStore, outbound: Outbound, health: Health) -> None:
    """Update readiness; log once when a service stops answering, and once when it answers again."""
    while True:
        await _probe("store", lambda: asyncio.to_thread(store.read, [PROBE]), health)
        await _probe("broker", outbound.ask, health)
        await asyncio.sleep(CHECK_S)


async def _probe(part: str, ask: Callable[[], Awaitable[object]], health: Health) -> None:
    before = health.reasons().get(part)
    try:
        await ask()
        health.set_ready(part)
        if before is not None:
            log.info("the %s answers", part)
    except (StoreUnavailableError, PublishError) as error:
        health.set_failed(part, away(part))
        if before != away(part):
            log.warning("waiting for the %s: %s", part, error)


class RecentUsers:
    """The users with the newest candidate sets, for the page to offer: reads the end of the topic in a thread."""

    def __init__(self, broker: Connection, topic: str) -> None:
        self._broker, self._topic = broker, topic
        self._users: dict[str, int] = {}  # and the time of publication
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="recent-users", daemon=True)

    def start(self) -> None:
        """Start reading from the topic's end."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def newest(self) -> Sequence[str]:
        """User ids, newest first."""
        users = self._users.copy()
        return sorted(users, key=users.__getitem__, reverse=True)

    def _run(self) -> None:
        def tell(error: Exception, _: int) -> None:
            log.warning("the reader of %s lost the broker and will retry: %r", self._topic, error)

        with suppress(KafkaError):  # while stopping
            READING.retrying(lambda error: isinstance(error, KafkaError), tell, self._stopping)(self._read)

    def _read(self) -> None:
        options = {"auto_offset_reset": "latest", "max_partition_fetch_bytes": FETCH_BYTES}
        with closing(self._broker.consumer(self._topic, **options)) as consumer:
            while not self._stopping.is_set():
                for records in consumer.poll(timeout_ms=0, max_records=100).values():
                    for record in records:
                        self._note(record.key, record.timestamp)
                _skip(consumer)
                self._stopping.wait(CHECK_S / 4)

    def _note(self, key: bytes | None, published_ms: int) -> None:
        user = (key or b"").decode(errors="replace")
        self._users[user] = published_ms
        if len(self._users) > SHOWN_USERS:
            del self._users[min(self._users, key=self._users.__getitem__)]


def _skip(consumer: KafkaConsumer) -> None:
    """Skip all but the newest records, as many as users are shown."""
    for place, end in consumer.end_offsets(list(consumer.assignment())).items():
        position = consumer.position(place)
        if position is not None and position < end - SHOWN_USERS:
            consumer.seek(place, end - SHOWN_USERS)
