"""The catalogue as the keeper of codes sees it: of each item the vector, the parts that its code stands for, and the code.

Columns, not objects: with d = 64 and P = 16 about 450 bytes an item, half of them its name and place.
"""

from collections.abc import Sequence

import numpy as np

from models.codes.codebook import Codebook, Codes, Floats
from stream.codes.code_reader import Word, newest
from stream.codes.validation import Shapes, fault_of
from stream.kafka.messages import Recode, digest
from stream.kafka.topic_reader import Places

FIRST_ROWS = 1024
NOWHERE = -1  # partition of an item of which no record speaks: it stands in the bundle's table alone


class Ledger:
    """Follows the words of one bundle's generation; rows of items are 0..n-1 in no particular order. Not thread-safe."""

    def __init__(self, bundle: str, own: Codebook, dim: int) -> None:
        self.bundle, self.places = bundle, Places()
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._own = own.generation
        self._shapes = Shapes(dim, own.dim, {own.generation: own}, own.generation)
        self._tags: list[str] = [own.generation]  # generations of codes, by number
        self._vectors = np.zeros((FIRST_ROWS, dim), np.float32)
        self._parts = self._vectors if own.dim == dim else np.zeros((FIRST_ROWS, own.dim), np.float32)
        self._codes = np.zeros((FIRST_ROWS, own.subspaces), np.uint8)
        self._tag = np.zeros(FIRST_ROWS, np.int32)
        self._partition = np.zeros(FIRST_ROWS, np.int32)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def coded(self) -> Floats:
        """What codes stand for (n, D) float32: a view, true until the next change."""
        return self._parts[: len(self)]

    @property
    def codes(self) -> Codes:
        """The codes (n, P) as published: a view, true until the next change."""
        return self._codes[: len(self)]

    def codes_of(self, names: Sequence[str]) -> Codes | None:
        """The codes (m, P) of items as published, None where one of them is not there."""
        rows = [self._rows.get(name, -1) for name in names]
        return None if -1 in rows else self._codes[rows]

    def of_generation(self, generation: str) -> np.ndarray:
        """Mask (n,): whose code is of this generation."""
        number = self._tags.index(generation) if generation in self._tags else -1
        return self._tag[: len(self)] == number

    def begin(self, names: Sequence[str], vectors: Floats, codes: Codes, parts: Floats | None = None) -> None:
        """Take the bundle's table: these items are in every index, whether or not a record speaks of them."""
        for at, name in enumerate(names):
            self._put(name, vectors[at], vectors[at] if parts is None else parts[at], codes[at], self._own, NOWHERE)

    def apply(self, words: Sequence[Word], places: Places) -> dict[str, np.ndarray | None]:
        """Take words in their order; gives, by item, what the codes of new and changed ones stand for, (D,), and None for one that went."""
        found: dict[str, np.ndarray | None] = {}
        items, recodes = newest(words)
        partitions = {word.item: word.partition for word in words}
        for name, said in items.items():
            if said is None:
                self._remove(name)
                found[name] = None
            elif said.generation == self.bundle and fault_of(said, self._shapes) is None:
                vector = np.frombuffer(said.vector, "<f4")
                parts = np.frombuffer(said.parts, "<f4") if said.parts else vector
                self._put(name, vector, parts, np.frombuffer(said.code, np.uint8), said.codebook or self._own, partitions[name])
                found[name] = parts
        for name, recode in recodes.items():
            row = self._rows.get(name)
            if row is not None and recode.of == self._digest(row) and len(recode.code) == self._codes.shape[1]:
                self._codes[row], self._tag[row] = np.frombuffer(recode.code, np.uint8), self._number(recode.codebook)
        self.places = dict(places)
        return found

    def recode(self, row: int, codebook: str, code: np.ndarray) -> tuple[int | None, Recode]:
        """The record that gives a row another code, and the partition it belongs to; None: that of its key."""
        record = Recode(item_id=self.names[row], generation=self.bundle, codebook=codebook, code=code.tobytes(), of=self._digest(row))
        partition = int(self._partition[row])
        return None if partition == NOWHERE else partition, record

    def renamed(self, generation: str, rows: np.ndarray) -> None:
        """The codes of these rows are, byte for byte, codes of this generation too."""
        self._tag[rows] = self._number(generation)

    def _digest(self, row: int) -> bytes:
        return digest(self._vectors[row].astype("<f4", copy=False).tobytes())

    def _number(self, generation: str) -> int:
        if generation not in self._tags:
            self._tags.append(generation)
        return self._tags.index(generation)

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
