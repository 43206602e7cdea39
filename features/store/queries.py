"""The view `query`: normalised text and keyword ids of every query, under the hash of its text."""

from collections.abc import Iterable
from hashlib import blake2b

from features.codec import pack
from features.outcomes import QueryRow
from features.rows import Search
from features.store import Key, Stored, Version
from features.table import QUERY
from features.text import words

MAX_KEYWORDS = 128


def query_hash(text: str) -> str:
    """16 hex digits of a normalised text: the entity of its row."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def keywords(text: str) -> list[int]:
    """63-bit hashes of the words and character n-grams of a text (features.text.words), in order; at most MAX_KEYWORDS."""
    return [int.from_bytes(blake2b(word.encode(), digest_size=8).digest()) >> 1 for word in words(text)[:MAX_KEYWORDS]]


def query_rows(searches: Iterable[Search]) -> list[tuple[Key, Stored]]:
    """The rows of these queries. They depend only on the text, so every write of one is the same and none is refused."""
    texts = sorted({search.text for search in searches})
    return [
        (Key(QUERY.name, (query_hash(text),)), Stored(pack(QueryRow(text=text, keywords=keywords(text))), Version(), 0)) for text in texts
    ]
