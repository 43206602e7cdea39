"""The configuration of a bundle: each field has one place, and survives its manifest."""

from itertools import combinations

import msgspec
import pytest

from models.config import Config, NetworkConfig, RetrievalConfig, Shares, TrainingConfig

PARTS = NetworkConfig, TrainingConfig, RetrievalConfig


def test_no_two_parts_have_a_field_of_one_name():
    assert not any({*one.__struct_fields__} & {*other.__struct_fields__} for one, other in combinations(PARTS, 2))


def test_a_field_is_replaced_in_the_part_that_has_it_and_nothing_else_changes():
    config = Config().replace(dim=16, epochs=1, shares=Shares(repeat=0.1))
    assert config.network == NetworkConfig(dim=16)
    assert config.training == TrainingConfig(epochs=1)
    assert config.retrieval == RetrievalConfig(shares=Shares(repeat=0.1))
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config
    with pytest.raises(TypeError, match="depth, width"):
        Config().replace(width=3, dim=8, depth=2)
