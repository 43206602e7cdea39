"""A Docker-compatible engine for these tests: the one that answers already, or the one beside the checkout (`../shared`)."""

import os
import random
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator

import docker
import pytest

from tests.beside import ROOT, SHARED, lacking

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


def pinned_images() -> dict[str, str]:
    """The images that docker-compose.yml and the Dockerfile pin, by the variable that replaces each."""
    found = re.findall(r"\$\{([A-Z]+_IMAGE):-([^}]+)\}", (ROOT / "docker-compose.yml").read_text())
    assert len(found) == len(dict(found))
    return dict(found)


def images() -> dict[str, str]:
    """For each variable of `pinned_images` the image to test with.

    It is the one that the environment names, else the pinned one. Where that cannot be pulled, it is an image of the same repository
    that the engine has.
    """
    client = docker.from_env(timeout=60)
    try:
        return {name: os.environ.get(name) or _pulled(client, image) for name, image in pinned_images().items()}
    finally:
        client.close()


def _pulled(client: docker.DockerClient, image: str) -> str:
    repository, _, tag = image.partition(":")
    try:
        client.images.pull(repository, tag=tag)
    except docker.errors.APIError as error:
        here = [mine.removeprefix("docker.io/").removeprefix("library/") for one in client.images.list() for mine in one.tags]
        same = [mine for mine in here if mine.startswith(f"{repository}:")]
        if not same:
            pytest.fail(f"{image} cannot be pulled, and the engine has no other image of {repository}: {error}")
        return same[0]
    return image


def free_port() -> int:
    """A free port of 127.0.0.1, below the range from which the system gives clients theirs."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _answers() -> bool:
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
