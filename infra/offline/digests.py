"""Names for what is kept: the same facts give the same name, in any process."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec


def digest(facts: Sequence[Any]) -> str:
    """20 letters that follow from facts; anything that msgspec writes as JSON is one."""
    return blake2b(msgspec.json.encode(facts), digest_size=10).hexdigest()
