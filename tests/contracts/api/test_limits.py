"""What one client can hold or flood of the API and of a worker's metrics server: real sockets against real servers."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from threading import Thread
from time import monotonic
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from features.store.memory import MemoryStore
from infra.health import Health
from infra.http.api import make_api
from infra.http.rates import Rates, client_of
from infra.http.server import make_server
from infra.metrics import ApiMetrics, IngestMetrics
from infra.probes import serve_metrics
from infra.settings import Settings
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound

SLOW = 50
ENDED_S = 20.0  # far more than the time-outs below: a connection that is never closed fails the test


@contextmanager
def serving(**settings: object) -> Iterator[tuple[int, CollectorRegistry]]:
    """The port of a live server within limits, as `everlong api` makes it, and what it counts."""
    chosen, registry = Settings(**settings), CollectorRegistry()
    outbound = Outbound(Connection(bootstrap="127.0.0.1:9"), give_up_after_s=1)

    @asynccontextmanager
    async def lifespan(_):
        yield
        await outbound.stop()

    app = make_api(MemoryStore(), outbound, ApiMetrics(registry), Health(), chosen, lifespan=lifespan)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = make_server(app, chosen)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1], registry
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def connect(port: int, begin: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=ENDED_S)
    made.sendall(begin)
    return made


def received(made: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = b""
    try:
        while part := made.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
STALLED = {
    "nothing is sent": (b"", b"408"),
    "half a request line": (b"GET /v1/us", b"408"),
    "half a header": (b"GET /v1/users HTTP/1.1\r\nHost: loc", b"408"),
    "half a body": (HEAD + b"[{", b'"slow_body"'),
    "no second request": (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", b'"live":true'),
    "half a second request": (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he", b'"live":true'),
}


@pytest.mark.fault(
    "Many connections that send nothing, half a header or half a body",
    "Each is answered with 408 and closed after its timeout, and other clients are served meanwhile",
)
def test_slow_connections_are_closed():
    limits = {"api_head_timeout_s": 0.3, "api_body_timeout_s": 0.3, "api_idle_timeout_s": 1}
    every = list(STALLED.values()) * (SLOW // len(STALLED) + 1)
    with serving(**limits) as (port, registry), ExitStack() as stack:
        slow = [(stack.enter_context(connect(port, begin)), expected) for begin, expected in every]
        with urlopen(f"http://127.0.0.1:{port}/v1/users", timeout=ENDED_S) as answer:
            assert answer.status == 200
        for made, expected in slow:
            assert expected in received(made)
    value = registry.get_sample_value
    assert value("everlong_http_requests_total", {"route": "/v1/events", "status": "408"}) == len(slow) / len(STALLED)


@pytest.mark.fault("More connections than EVERLONG_API_CONNECTIONS", "Excess connections get 503 with Retry-After until another one closes")
def test_connections_are_bounded(caplog):
    with serving(api_connections=3) as (port, _), ExitStack() as stack:
        held = [stack.enter_context(connect(port, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")) for _ in range(3)]
        assert all(b"200 OK" in made.recv(65536) for made in held)
        with caplog.at_level(logging.WARNING), connect(port) as one_more:
            answer = received(one_more)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in head
        assert json.loads(body)["reason"] == "too_many_connections"
        assert "EVERLONG_API_CONNECTIONS" in caplog.text
        held[0].close()
        end = monotonic() + ENDED_S
        while monotonic() < end:
            with connect(port, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as again:
                if b"200 OK" in received(again):
                    return
    pytest.fail("no connection was answered after one had ended")


@pytest.mark.fault("A request with headers longer than 64 KiB", "The API answers 431 and closes the connection")
def test_headers_are_bounded():
    with serving() as (port, _), connect(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as made:
        try:
            for _ in range(100):
                made.sendall(b"X-Filler: " + b"x" * 4000 + b"\r\n")
        except (ConnectionResetError, BrokenPipeError):
            return  # closed while we sent
        assert b"431" in received(made)


@pytest.mark.fault(
    "A client that disconnects while sending a request body",
    "The request is counted as `client_closed`, without a 500 or a traceback in the log",
)
def test_a_client_that_goes_away_is_no_error(caplog):
    with serving() as (port, registry):
        for _ in range(20):
            connect(port, HEAD + b"[{").close()
        labels = {"route": "/v1/events", "status": "client_closed"}
        end = monotonic() + ENDED_S
        while registry.get_sample_value("everlong_http_requests_total", labels) != 20:
            assert monotonic() < end
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert registry.get_sample_value("everlong_http_requests_total", {"route": "/v1/events", "status": "500"}) is None


@pytest.mark.fault(
    "More requests per second from one client than EVERLONG_API_RATE",
    "The API answers 429 with Retry-After, and still serves other clients and probes",
)
def test_requests_of_a_client_are_bounded():
    with serving(api_rate=0.5, api_trusted_proxies="127.0.0.1") as (port, _):

        def ask(path: str, client: str) -> tuple[int, str]:
            with connect(port, f"GET {path} HTTP/1.0\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n".encode()) as made:
                answer = received(made).decode()
            return int(answer.split()[1]), answer

        assert ask("/v1/users", "10.0.0.1")[0] == 200
        status, answer = ask("/v1/users", "10.0.0.1")
        assert status == 429
        assert "retry-after: " in answer.lower()
        assert "EVERLONG_API_RATE" in answer
        assert ask("/v1/users", "10.0.0.2")[0] == 200
        assert ask("/health/ready", "10.0.0.1")[0] == 200


def test_a_forwarded_address_counts_only_from_a_trusted_proxy():
    with serving(api_rate=0.5) as (port, _):
        for client, expected in (("10.0.0.1", b" 200 "), ("10.0.0.2", b" 429 ")):
            with connect(port, f"GET /v1/users HTTP/1.0\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n".encode()) as made:
                assert expected in received(made)


def test_a_bucket_fills_again_and_the_table_of_clients_is_bounded():
    now = [0.0]
    rates = Rates(10.0, clients=3, clock_s=lambda: now[0])
    assert [rates.wait_s("a") for _ in range(20)] == [0.0] * 20
    assert rates.wait_s("a") == pytest.approx(0.1)
    now[0] = 0.1
    assert rates.wait_s("a") == 0.0
    assert rates.wait_s("a") > 0
    for client in "bcd":
        assert rates.wait_s(client) == 0.0
    assert len(rates) == 3
    now[0] = 1e6
    assert [rates.wait_s("b") for _ in range(21)][-1] > 0, "a bucket holds no more than its burst"


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_is_an_address_or_a_network(host, client):
    assert client_of({"client": (host, 1)}) == client
    assert client_of({"client": None}) == "unknown"


@pytest.mark.fault("Many slow connections to a worker's metrics server", "At most 16 are held, each for 10 s, and scrapes work afterwards")
def test_connections_of_a_metrics_server_are_bounded():
    server = serve_metrics(IngestMetrics(), Health(), most=4, longest_s=0.5)
    try:
        with ExitStack() as stack:
            slow = [stack.enter_context(connect(server.port, b"GET /met")) for _ in range(SLOW)]
            assert [received(made) for made in slow] == [b""] * SLOW
        with urlopen(f"http://127.0.0.1:{server.port}/health/live", timeout=ENDED_S) as answer:
            assert answer.status == 200
    finally:
        server.close()
