"""Text to hashed ids: words and the character trigrams inside them, so that misspellings and new words share rows."""

import re
from functools import lru_cache
from zlib import crc32

_WORD = re.compile(r"\w+")
PAD = 0


def hashed(text: str, buckets: int, limit: int) -> list[int]:
    """At most `limit` ids in [1, buckets) of a text: its words first, then their trigrams; 0 is kept for padding."""
    words = _WORD.findall(text.lower())
    ids = [_bucket(word, buckets) for word in words]
    if len(ids) < limit:
        ids += [_bucket(part, buckets) for word in words for part in trigrams(word)]
    return ids[:limit]


def trigrams(word: str) -> list[str]:
    """The trigrams of a word with its ends marked.

    >>> trigrams("cat")
    ['#ca', 'cat', 'at#']
    """
    marked = f"#{word}#"
    return [marked[at : at + 3] for at in range(len(marked) - 2)]


@lru_cache(maxsize=65_536)
def _bucket(part: str, buckets: int) -> int:
    return 1 + crc32(part.encode("utf-8", "surrogatepass")) % (buckets - 1)
