"""Inference over a bundle, batch first: from rows of the store to interests, categories and item vectors."""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from features.events import Item
from features.rows import CategoryRow, UserRow
from models.bundle import Bundle, ItemTable
from models.codes.modalities import only_fused
from models.encoding.contents import contents, query_words, strangers
from models.encoding.inputs import Positions, Texts, long_tokens, newest_ts, short_tokens, touched_tokens
from models.encoding.vocabulary import FIRST, UNKNOWN
from models.network.ulim import EncodedUsers, NextCategory

CHUNK = 8192  # items encoded at once


class ShortState(NamedTuple):
    """Encoded users before any category is chosen, the input of `categories` and `long`."""

    vectors: np.ndarray  # (B, d) float32, unit length: the short interest of each
    newest_ts: list[int]  # (B,) ms
    state: EncodedUsers

    @property
    def pooled(self) -> np.ndarray:
        """p_s (B, d) float32, the query of the long tower."""
        return self.state.pooled.cpu().numpy()


class Recommender:
    """The models of one generation. Scores are inner products of unit vectors: cosines. Any thread may call it.

    Empty histories, and items, categories and words that were never seen, are all valid inputs.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self.generation = bundle.generation
        self.dim = bundle.manifest.dim
        self._network = bundle.network.to(device).eval()
        self._config, self._widths = bundle.manifest.config.network, bundle.manifest.widths
        self._vocabulary = bundle.vocabulary
        self._places = {item: position for position, item in enumerate(bundle.items.ids)}
        self._positions = Positions(self._places, self._vocabulary)
        self._vectors = self._table(bundle.items)
        self._given = self._filled = len(self._vectors)  # places of the bundle's items and of strangers; places used in all
        self._free: list[int] = []  # places of forgotten items
        self._lock = Lock()  # held while the table of item vectors is read or changed

    def warm_up(self) -> None:
        """Run every path once, so that the first request does not pay for it."""
        state = self.short([UserRow()])
        self.categories([UserRow()], state, 1)
        self.long(state, [(0, "", CategoryRow())])
        self.item_codes(self.item_parts([Item(item_id="-", category_id="-", title="", ts=0)]))

    @torch.inference_mode()
    def short(self, users: Sequence[UserRow]) -> ShortState:
        """The short interest of B users, from their `user` rows alone."""
        texts = Texts(self._config)
        touched = touched_tokens(users, self._vocabulary, self._config.touched)
        with self._lock:
            tokens = short_tokens(users, self._positions, texts, self._config.short)
            state = self._network.users(self._vectors, tokens, touched, self._network.texts(texts.words()))
        return ShortState(state.vectors.cpu().numpy(), [newest_ts(user) for user in users], state)

    @torch.inference_mode()
    def categories(self, users: Sequence[UserRow], state: ShortState, k: int) -> list[list[tuple[str, float]]]:
        """The `k` likeliest next categories of each user with their probabilities, best first; fewer where there are fewer.

        A category that the model never saw can be among them: the pointer points at what the user touched.
        """
        if not users:
            return []
        next_ = self.next_category(state.state)
        top = next_.mixed[:, FIRST:].topk(min(k, len(self._vocabulary.categories)), dim=1)
        chosen = [
            [(self._vocabulary.category_name(row + FIRST), chance) for row, chance in zip(rows, chances, strict=True) if chance > 0]
            for rows, chances in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        pointed = (next_.gate * next_.attention).masked_fill(state.state.touched_rows != UNKNOWN, 0)
        for n in pointed.any(1).nonzero()[:, 0].tolist():
            names = users[n].categories[-self._config.touched :]
            strange = [(at.category, chance) for at, chance in zip(names, pointed[n].tolist(), strict=False) if chance > 0]
            chosen[n] = sorted(chosen[n] + strange, key=lambda choice: -choice[1])[:k]
        return chosen

    def next_category(self, state: EncodedUsers) -> NextCategory:
        """PGIN's distribution over the N categories for B users, from which `categories` takes the likeliest."""
        return self._network.next_category(state)

    @torch.inference_mode()
    def category_parts(self, users: Sequence[UserRow], state: ShortState, k: int) -> list[tuple[list[str], list[str]]]:
        """The `k` likeliest known categories of each user by the pointer alone, and by the generator alone: for evaluation."""
        if not users:
            return []
        next_ = self.next_category(state.state)
        named = []
        for part in (next_.pointer, next_.generator):
            top = part[:, FIRST:].topk(min(k, len(self._vocabulary.categories)), dim=1)
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            named.append(
                [[self._vocabulary.category_name(row + FIRST) for row, chance in zip(*pair, strict=True) if chance > 0] for pair in pairs]
            )
        return list(zip(*named, strict=True))

    @torch.inference_mode()
    def long(self, state: ShortState, requests: Sequence[tuple[int, str, CategoryRow]]) -> np.ndarray:
        """The long interests (R, d) float32 of R requests: position in `state`, category, the row of user and category."""
        if not requests:
            return np.zeros((0, self.dim), np.float32)
        texts = Texts(self._config)
        newest = [state.newest_ts[position] for position, _, _ in requests]
        device = self._network.device
        of = torch.tensor([position for position, _, _ in requests], device=device)
        category = torch.tensor([self._vocabulary.category(category) for _, category, _ in requests], device=device)
        user = state.state
        with self._lock:
            tokens = long_tokens([row for _, _, row in requests], newest, self._positions, texts, self._config.long)
            said = self._network.texts(texts.words())
            return self._network.long(self._vectors, tokens, said, user.pooled[of], user.profile[of], category).cpu().numpy()

    @torch.inference_mode()
    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Live queries as interests that search items, (n, d) float32 of unit length; zeros where a query says nothing."""
        return self._network.texts(query_words(texts, self._config)).cpu().numpy()

    @torch.inference_mode()
    def item_vectors(self, items: Sequence[Item]) -> np.ndarray:
        """Unit vectors (n, d) float32 of items, known or new: a new one is known by attributes, words and given embeddings."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(items), CHUNK):
            told = contents(items[start : start + CHUNK], self._vocabulary, self._config, self._widths)
            parts.append(self._network.items(told).cpu().numpy())
        return np.concatenate(parts)

    @property
    def fused(self) -> bool:
        """Whether codes stand for the item vectors themselves, so that `item_parts` are these."""
        return only_fused(self._config.coded)

    @torch.inference_mode()
    def item_parts(self, items: Sequence[Item]) -> np.ndarray:
        """What the codes of items stand for (n, D) float32: the vectors of `NetworkConfig.coded` side by side (models.codes.modalities)."""
        if self.fused:
            return self.item_vectors(items)
        parts = [np.zeros((0, self.bundle.codebook.dim), np.float32)]
        for start in range(0, len(items), CHUNK):
            told = contents(items[start : start + CHUNK], self._vocabulary, self._config, self._widths)
            parts.append(self._network.coded(told, self._config.coded))
        return np.concatenate(parts)

    def item_codes(self, parts: np.ndarray) -> np.ndarray:
        """PQ codes (n, P) uint8 of what `item_parts` gives, under the bundle's codebook."""
        return self.bundle.codebook.encode(parts)

    @torch.inference_mode()
    def remember(self, items: Sequence[str], vectors: np.ndarray) -> None:
        """Let histories read the vectors (n, d) of new or changed items, of this generation, as the catalogue published them."""
        newest = {item: row for row, item in enumerate(items)}  # an item that comes twice: its last vector
        chosen = np.asarray(vectors, np.float32)[list(newest.values())]  # (n, d)
        rows = np.array([self._vocabulary.item(item) for item in newest], np.int64)
        with self._lock:
            for item in newest:
                if item not in self._places:
                    self._places[item] = self._free.pop() if self._free else self._next()
            at = torch.tensor([self._places[item] for item in newest], dtype=torch.int64, device=self._network.device)
            self._vectors[at] = self._network.table(torch.from_numpy(chosen).to(self._network.device), rows)

    def forget(self, items: Iterable[str]) -> None:
        """Free the place of items that `remember` added, so that memory is bounded by the items that exist. Histories then read the
        stranger of their category; items of the bundle stay."""
        with self._lock:
            for item in items:
                if self._places.get(item, 0) >= self._given:
                    self._free.append(self._places.pop(item))

    def _next(self) -> int:
        """The first place that was never used; the table grows to hold it."""
        if self._filled == len(self._vectors):
            grown = self._vectors.new_zeros(2 * len(self._vectors), self._vectors.shape[1])
            grown[: self._filled] = self._vectors
            self._vectors = grown
        self._filled += 1
        return self._filled - 1

    @torch.inference_mode()
    def _table(self, known: ItemTable) -> torch.Tensor:
        """What histories read (V + N, d) of the items of the table, then of the stranger of each category."""
        vectors, unknown = torch.from_numpy(known.vectors).to(self._network.device), strangers(self._vocabulary, self._config, self._widths)
        rows = np.array([self._vocabulary.item(item) for item in known.ids], np.int64)
        return self._network.table(torch.cat([vectors, self._network.items(unknown)]), np.concatenate([rows, unknown.item]))
