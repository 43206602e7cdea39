"""The catalogue as the code manager sees it: per item its vector, the parts that its code quantises, its code, and the code's codebook.

Columns, not objects: with d = 64 and P = 16 about 450 bytes per item, half of them its name and row number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.codes.codebook import Codebook, Codes, Floats
from stream.codes.readers import CodeRecord, newest
from stream.codes.validation import Shapes, fault_of
from stream.kafka.messages import Recode, digest
from stream.kafka.topic_reader import Offsets

FIRST_ROWS = 1024
NOWHERE = -1  # partition of an item that is in the bundle's table only, without a record of the topic


class Selected(NamedTuple):
    """Some items as they are now: names, the partition of each (NOWHERE: that of its key), and the digest of its vector."""

    names: list[str]
    partitions: list[int]
    digests: list[bytes]

    def recodes(self, bundle: str, codebook: str, codes: Codes, start: int, end: int) -> list[tuple[int | None, Recode]]:
        """The records, with their partitions, that give items `start` to `end` the codes (m, P) of this codebook."""
        return [
            (
                None if partition == NOWHERE else partition,
                Recode(item_id=name, bundle=bundle, codebook=codebook, code=code.tobytes(), of=digest),
            )
            for name, partition, digest, code in zip(
                self.names[start:end], self.partitions[start:end], self.digests[start:end], codes[start:end], strict=True
            )
        ]


class CatalogueSnapshot:
    """The items of one bundle, in rows 0..n-1 of no particular order; follows the topic `item-codes`. Not thread-safe.

    `own` is the bundle's own codebook. `offsets` are those up to which records were applied.
    """

    def __init__(self, bundle: str, own: Codebook, dim: int) -> None:
        self.bundle, self.offsets = bundle, Offsets()
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._own = own.generation
        self._shapes = Shapes(dim, own.dim, {own.generation: own}, own.generation)
        self._tags: list[str] = [own.generation]  # names of codebooks; a code's tag is an index of this list
        self._vectors = np.zeros((FIRST_ROWS, dim), np.float32)
        self._parts = self._vectors if own.dim == dim else np.zeros((FIRST_ROWS, own.dim), np.float32)
        self._codes = np.zeros((FIRST_ROWS, own.subspaces), np.uint8)
        self._tag = np.zeros(FIRST_ROWS, np.int32)
        self._partition = np.zeros(FIRST_ROWS, np.int32)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def coded(self) -> Floats:
        """What codes quantise (n, D) float32: a view, valid until the next change."""
        return self._parts[: len(self)]

    @property
    def codes(self) -> Codes:
        """The codes (n, P) as published: a view, valid until the next change."""
        return self._codes[: len(self)]

    def codes_of(self, names: Sequence[str]) -> Codes | None:
        """The codes (m, P) of items as published; None if one of the items is unknown."""
        rows = [self._rows.get(name, -1) for name in names]
        return None if -1 in rows else self._codes[rows]

    def of_codebook(self, codebook: str) -> np.ndarray:
        """Mask (n,): the items whose code belongs to this codebook."""
        number = self._tags.index(codebook) if codebook in self._tags else -1
        found: np.ndarray = self._tag[: len(self)] == number
        return found

    def load_table(self, names: Sequence[str], vectors: Floats, codes: Codes, parts: Floats | None = None) -> None:
        """Begin with the bundle's item table: these items are in every index, with or without a record in the topic."""
        for at, name in enumerate(names):
            self._put(name, vectors[at], vectors[at] if parts is None else parts[at], codes[at], self._own, NOWHERE)

    def apply(self, records: Sequence[CodeRecord], offsets: Offsets) -> dict[str, np.ndarray | None]:
        """Apply records in their order. Returns, by item, what the codes of new and changed items quantise, (D,); None: deleted."""
        found: dict[str, np.ndarray | None] = {}
        items, recodes = newest(records)
        partitions = {record.item: record.partition for record in records}
        for name, code in items.items():
            if code is None:
                self._remove(name)
                found[name] = None
            elif code.bundle == self.bundle and fault_of(code, self._shapes) is None:
                vector = np.frombuffer(code.vector, "<f4")
                parts = np.frombuffer(code.parts, "<f4") if code.parts else vector
                self._put(name, vector, parts, np.frombuffer(code.code, np.uint8), code.codebook or self._own, partitions[name])
                found[name] = parts
        for name, recode in recodes.items():
            row = self._rows.get(name)
            if row is not None and recode.of == self._digest(row) and len(recode.code) == self._codes.shape[1]:
                self._codes[row], self._tag[row] = np.frombuffer(recode.code, np.uint8), self._number(recode.codebook)
        self.offsets = dict(offsets)
        return found

    def select(self, rows: np.ndarray) -> Selected:
        """The items of these rows. The result stays valid when rows change."""
        numbers = rows.tolist()
        return Selected([self.names[row] for row in numbers], self._partition[rows].tolist(), [self._digest(row) for row in numbers])

    def tag(self, codebook: str, rows: np.ndarray) -> None:
        """The codes of these rows are, byte for byte, also codes of this codebook."""
        self._tag[rows] = self._number(codebook)

    def _digest(self, row: int) -> bytes:
        return digest(self._vectors[row].astype("<f4", copy=False).tobytes())

    def _number(self, codebook: str) -> int:
        if codebook not in self._tags:
            self._tags.append(codebook)
        return self._tags.index(codebook)

    def _put(self, name: str, vector: Floats, parts: Floats, code: Codes, codebook: str, partition: int) -> None:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = len(self.names)
            self.names.append(name)
            if row == len(self._codes):
                self._grow()
        self._vectors[row], self._parts[row], self._codes[row] = vector, parts, code
        self._tag[row], self._partition[row] = self._number(codebook), partition

    def _remove(self, name: str) -> None:
        """The last row takes the place of the one that goes."""
        row, last = self._rows.pop(name, None), len(self.names) - 1
        if row is None:
            return
        moved = self.names.pop()
        if row != last:
            self.names[row] = moved
            self._rows[moved] = row
            for column in (self._vectors, self._parts, self._codes, self._tag, self._partition):
                column[row] = column[last]

    def _grow(self) -> None:
        shared = self._parts is self._vectors
        self._vectors = _doubled(self._vectors)
        self._parts = self._vectors if shared else _doubled(self._parts)
        self._codes, self._tag, self._partition = _doubled(self._codes), _doubled(self._tag), _doubled(self._partition)


def _doubled(column: np.ndarray) -> np.ndarray:
    return np.concatenate([column, np.zeros_like(column)])
