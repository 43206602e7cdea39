"""The codes of a generation that was announced, gathered by a refresh worker until all of them are there."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.codes.codebook import Codebook, Codes
from models.index import Upsert
from stream.kafka.messages import Generation, Recode
from stream.kafka.topic_reader import Places


class Coming:
    """What changes with a generation, from the places on at which its announcement was noticed. Not thread-safe."""

    def __init__(self, record: Generation, codebook: Codebook, noticed: Places) -> None:
        self.generation, self._started_ms = record.generation, record.started_ms
        self._codebook = codebook
        self.changed: dict[str, Codes] = {}  # item and its code (P,) uint8
        self._noticed = dict(noticed)

    def is_of(self, record: Generation) -> bool:
        """Whether this is what that announcement began."""
        return (self.generation, self._started_ms) == (record.generation, record.started_ms)

    def accepts(self, recode: Recode) -> bool:
        """Whether its code is one of this generation."""
        codebook = self._codebook
        return recode.codebook == self.generation and len(recode.code) == codebook.subspaces and max(recode.code) < codebook.size

    def take(self, upserts: Sequence[Upsert], gone: Sequence[str], recodes: Mapping[str, Recode]) -> None:
        """Items that came, changed or went, and codes of this generation that were published for their present vectors."""
        for item in gone:
            self.changed.pop(item, None)
        if upserts:
            coded = np.stack([upsert.vector if upsert.parts is None else upsert.parts for upsert in upserts])
            self.changed.update(zip((upsert.item for upsert in upserts), self._codebook.encode(coded), strict=True))
        self.changed.update({item: np.frombuffer(recode.code, np.uint8) for item, recode in recodes.items()})

    def whole(self, record: Generation) -> bool:
        """Whether this is of that refresh, and nothing that it did not compare was missed: noticed before the comparison began."""
        in_time = all(self._noticed.get(at, begin + 1) <= begin for at, begin in record.begins.items())
        return self.is_of(record) and bool(record.begins) and in_time
