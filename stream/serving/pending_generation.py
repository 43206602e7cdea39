"""The codes of an announced codebook, gathered by a refresh worker until all of them are published."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.codes.codebook import Codes
from models.index import Upsert, View
from stream.codes.codebook_registry import Announced
from stream.kafka.messages import CodebookRecord, Recode, digest
from stream.kafka.topic_reader import Offsets


class PendingGeneration:
    """What changes with a codebook, from `noticed` on: the offsets at which its announcement was noticed. Not thread-safe."""

    def __init__(self, announced: Announced, noticed: Offsets) -> None:
        record, self._codebook = announced
        self.name, self._started_ms = record.codebook, record.started_ms
        self.changed: dict[str, Codes] = {}  # item and its code (P,) uint8
        self._noticed = dict(noticed)

    def belongs_to(self, record: CodebookRecord) -> bool:
        """Whether this refresh announced the codebook."""
        return (self.name, self._started_ms) == (record.codebook, record.started_ms)

    def matching(self, recodes: Mapping[str, Recode], view: View) -> dict[str, Recode]:
        """The recodes of this codebook that were made for the vectors of the view."""
        names = [name for name, recode in recodes.items() if self._accepts(recode)]
        numbers = view.numbers(names)
        known = np.flatnonzero(numbers >= 0)
        vectors = view.vectors(numbers[known])
        pairs = [(names[at], vector) for at, vector in zip(known.tolist(), vectors, strict=True)]
        return {name: recodes[name] for name, vector in pairs if recodes[name].of == digest(vector.astype("<f4").tobytes())}

    def apply(self, upserts: Sequence[Upsert], deleted: Sequence[str], recodes: Mapping[str, Recode]) -> None:
        """Items that were added, changed or deleted, and recodes for their present vectors (see `matching`)."""
        for item in deleted:
            self.changed.pop(item, None)
        if upserts:
            codes = self._codebook.encode(quantised(upserts))
            self.changed.update(zip((upsert.item for upsert in upserts), codes, strict=True))
        self.changed.update({item: np.frombuffer(recode.code, np.uint8) for item, recode in recodes.items()})

    def complete(self, record: CodebookRecord) -> bool:
        """Whether nothing was missed: this is that refresh, and it was noticed before the comparison began."""
        in_time = all(self._noticed.get(at, begin + 1) <= begin for at, begin in record.begins.items())
        return self.belongs_to(record) and bool(record.begins) and in_time

    def _accepts(self, recode: Recode) -> bool:
        codebook = self._codebook
        return recode.codebook == self.name and len(recode.code) == codebook.subspaces and max(recode.code) < codebook.size


def quantised(upserts: Sequence[Upsert]) -> np.ndarray:
    """What the codes of these items quantise (n, D): their parts, or the vectors themselves."""
    return np.stack([upsert.vector if upsert.parts is None else upsert.parts for upsert in upserts])
