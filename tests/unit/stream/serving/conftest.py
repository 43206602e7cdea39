"""A refresh worker's serving without a broker: a tiny bundle, what is told of it, what topic `codebooks` says."""

import pytest

from models.bundle import save
from stream.codes.codebook_registry import CodebookRegistry
from stream.serving.live_index import LiveIndex
from tests.live_index import NOBODY, Told
from tests.tiny_bundle import quickly_trained


@pytest.fixture
def directory(tmp_path):
    return save(quickly_trained(1), tmp_path / "bundle")


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def registry():
    return CodebookRegistry()


@pytest.fixture
def live(directory, told, registry):
    return LiveIndex(directory, "cpu", NOBODY, "item-codes", registry, told)
