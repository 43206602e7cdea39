"""The configuration of a bundle: network, training and retrieval. Its manifest holds it, so that serving builds the same network."""

from typing import Any

import msgspec

from models.config.network import NetworkConfig
from models.config.retrieval import USUAL, RetrievalConfig, Shares
from models.config.training import PretrainingConfig, TrainingConfig

__all__ = ["USUAL", "Config", "NetworkConfig", "PretrainingConfig", "RetrievalConfig", "Shares", "TrainingConfig"]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The three parts. No two of them have a field of the same name."""

    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    retrieval: RetrievalConfig = RetrievalConfig()

    def replace(self, **fields: Any) -> "Config":
        """A copy with other values of the named fields, each in the part that has it.

        Raises:
            TypeError: no part has a field of that name.
        """
        parts = {}
        for name in self.__struct_fields__:
            part = getattr(self, name)
            parts[name] = msgspec.structs.replace(part, **{key: fields.pop(key) for key in part.__struct_fields__ if key in fields})
        if fields:
            raise TypeError(f"no configuration has a field {', '.join(sorted(fields))}")
        return Config(**parts)
