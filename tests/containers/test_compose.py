"""docker-compose.yml as a user starts it: the image is built, everything comes up, candidates come out of the published API."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from tests.beside import ROOT
from tests.containers.conftest import free_port, images

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]
JOBS = {"ingest", "catalogue", "refresh", "api"}
T = TypeVar("T")


class Compose:
    """One project of docker-compose.yml, with ports of its own."""

    def __init__(self, secrets: Path) -> None:
        self.api, self.kafka, self.prometheus = free_port(), free_port(), free_port()
        self.secrets = secrets
        ports = {"EVERLONG_PORT": self.api, "KAFKA_PORT": self.kafka, "PROMETHEUS_PORT": self.prometheus}
        self._env = os.environ | {name: str(port) for name, port in ports.items()} | {"EVERLONG_SECRETS": str(secrets)} | images()
        self._command = [*_program(), "-p", f"everlong-test-{os.getpid()}", "--profile", "shop"]

    def run(self, *arguments: str, timeout_s: float = 120.0, check: bool = True) -> str:
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        return self.run("exec", "-T", service, *command, check=check)

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()


def _program() -> list[str]:
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    return [sys.executable, "-m", "podman_compose"]


def get(port: int, path: str, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=5) as answer:
        return json.load(answer)


def eventually(what: str, ask: Callable[[], T], within_s: float) -> T:
    """The first answer that holds something, asked every second; connections refused and the like count as not yet."""
    end, last = monotonic() + within_s, ""
    while monotonic() < end:
        try:
            if answer := ask():
                return answer
        except (URLError, OSError, ValueError) as error:
            last = repr(error)
        sleep(1)
    pytest.fail(f"not within {within_s} s: {what} {last}")


@pytest.fixture(scope="module")
def everything(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    secrets = tmp_path_factory.mktemp("secrets")
    subprocess.run(["sh", ROOT / "infra" / "compose" / "make-secrets.sh", secrets], check=True, capture_output=True)
    compose = Compose(secrets)
    try:
        compose.run("build", timeout_s=600)
        compose.run("up", "-d", timeout_s=180)
        yield compose
    finally:
        for service in ("init", "ingest", "catalogue", "refresh", "api", "shop"):
            print(f"--- {service}\n{compose.run('logs', '--tail', '30', service, check=False)}")  # pytest shows it when a test failed
        compose.run("down", "-v", "-t", "25", timeout_s=180, check=False)


@pytest.fixture(scope="module")
def user(everything: Compose) -> str:
    """A user of the simulated shop, read from the topic `candidates` through the broker's published port."""
    return eventually("candidates on their topic", lambda: _first_key(everything), within_s=800)


def _first_key(compose: Compose) -> str:
    access = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "everlong"}
    try:
        consumer = KafkaConsumer(
            "candidates",
            bootstrap_servers=f"127.0.0.1:{compose.kafka}",
            sasl_plain_password=compose.secret("kafka_password"),
            auto_offset_reset="earliest",
            consumer_timeout_ms=3000,
            group_id=None,
            **access,
        )
    except Exception as error:  # the broker is still starting; kafka-python has many ways to say so
        raise OSError(repr(error)) from error
    try:
        return next((record.key.decode() for record in consumer if record.key and record.value), "")
    finally:
        consumer.close()


def test_candidates_come_through_the_published_api(everything: Compose, user: str) -> None:
    def ask() -> Any:
        answer = get(everything.api, f"/v1/users/{user}/candidates?k=20", everything.secret("api_read_tokens"))
        return answer if answer["candidates"] else None

    answer = eventually("candidates of a user", ask, within_s=180)
    assert answer["user"] == user
    assert 0 < len(answer["candidates"]) <= 20
    assert answer["generation"]
    assert get(everything.api, "/health/ready")["ready"]


def test_features_are_asked_inside_a_container(everything: Compose, user: str) -> None:
    answer = json.loads(everything.inside("api", "everlong", "features", user, "--json"))
    assert answer["user"] == user
    assert answer["recent"]


def test_prometheus_scrapes_every_role(everything: Compose, user: str) -> None:
    def up() -> set[str]:
        targets = get(everything.prometheus, "/api/v1/targets")["data"]["activeTargets"]
        jobs = {target["labels"]["job"] for target in targets if target["health"] == "up"}
        return jobs if jobs >= JOBS else set()

    assert eventually("all targets up", up, within_s=300) == JOBS
    rules = get(everything.prometheus, "/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    applied = get(everything.prometheus, "/api/v1/query?query=sum(everlong_events_total)")["data"]["result"]
    assert float(applied[0]["value"][1]) > 0


def test_a_container_may_do_little(everything: Compose, user: str) -> None:
    assert everything.inside("ingest", "id", "-u").strip() == "10001"
    assert "Read-only" in everything.inside("ingest", "sh", "-c", "touch /opt/everlong/x 2>&1 || true")
    status = everything.inside("ingest", "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_kafka_valkey_and_the_api_ask_who_is_there(everything: Compose, user: str) -> None:
    with pytest.raises(HTTPError, match="401"):
        get(everything.api, f"/v1/users/{user}/features")
    stranger = "valkey-cli ping; REDISCLI_AUTH=wrong valkey-cli ping"
    assert "NOAUTH" in everything.inside("valkey", "sh", "-c", stranger)
    assert "PONG" not in everything.inside("valkey", "sh", "-c", stranger)
    consumer = {"consumer_timeout_ms": 1000, "group_id": None, "api_version_auto_timeout_ms": 3000}
    with pytest.raises(KafkaError):
        KafkaConsumer("candidates", bootstrap_servers=f"127.0.0.1:{everything.kafka}", **consumer).poll(1000)
    for name in ("kafka_password", "valkey_password", "api_admin_tokens"):
        for service in ("ingest", "api", "valkey"):
            assert everything.secret(name) not in everything.inside(service, "cat", "/proc/1/environ", "/proc/1/cmdline")


def test_prometheus_files_are_right(engine: None) -> None:
    mounted = ["-v", f"{ROOT}/infra/prometheus:/etc/prometheus:ro", "--entrypoint", "promtool", images()["PROMETHEUS_IMAGE"]]
    run = [shutil.which("docker") or "podman", "run", "--rm", *mounted]
    for check in (["check", "config", "/etc/prometheus/prometheus.yml"], ["test", "rules", "/etc/prometheus/rules.test.yml"]):
        done = subprocess.run([*run, *check], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
