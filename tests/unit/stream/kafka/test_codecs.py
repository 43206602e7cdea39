"""Both Kafka clients decompress what either of them, and so any producer, compresses."""

from types import ModuleType

import aiokafka.codec
import kafka.codec
import pytest

CLIENTS = (aiokafka.codec, kafka.codec)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("reader", CLIENTS, ids=lambda module: module.__name__)
def test_a_codec_is_installed_for_each_client(codec: str, reader: ModuleType) -> None:
    payload = bytes(range(256)) * 8192  # 2 MiB: more than the block of any codec
    for writer in CLIENTS:
        compressed = bytes(getattr(writer, f"{codec}_encode")(payload))
        assert bytes(getattr(reader, f"{codec}_decode")(compressed)) == payload
