"""A Docker-compatible engine for these tests: the one that answers already, or the one beside the checkout (`../shared`)."""

import os
import random
import shlex
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.beside import SHARED, lacking

STARTER = SHARED / "containers" / "engine"


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """An engine that answers, with the variables that its clients need; one that this starts is ended afterwards."""
    if _answers():
        yield
        return
    if not STARTER.exists():
        lacking("CONTAINERS", "no Docker-compatible engine answers: start Docker, or set DOCKER_HOST")
    before = dict(os.environ)
    try:
        started = subprocess.run([STARTER, "up"], capture_output=True, text=True, timeout=180, check=False)
        assert started.returncode == 0, started.stderr
        for line in started.stdout.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = shlex.split(value)[0] if value else ""
        subprocess.run([STARTER, "images"], capture_output=True, timeout=600, check=True)
        assert _answers(), "the engine was started and does not answer"
        yield
    finally:
        subprocess.run([STARTER, "down"], capture_output=True, timeout=120, check=False)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def free_port() -> int:
    """A free port of 127.0.0.1, below the range from which the system gives clients theirs."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _answers() -> bool:
    import docker

    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()
