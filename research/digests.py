"""Names for what is kept: the same facts give the same name, in any process."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec


def digest(facts: Iterable[Any]) -> str:
    """20 letters that follow from facts and their order; anything that msgspec writes as JSON is one."""
    found = blake2b(digest_size=10)
    for fact in facts:
        found.update(msgspec.json.encode(fact) + b"\n")  # which no JSON of msgspec's holds
    return found.hexdigest()
