"""The tail of topic `item-codes`: every refresh worker reads all partitions and keeps reading, and so does the keeper of codes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from stream.connection import Connection
from stream.messages import RECODE, ItemCode, Recode
from stream.tail import Places, Tail

log = logging.getLogger(__name__)

_item_codes, _recodes = msgspec.json.Decoder(ItemCode), msgspec.json.Decoder(Recode)


class Word(NamedTuple):
    """What a record says of an item: all of it, a new code alone, or (None) that it is gone. `partition` is where it lies."""

    item: str
    said: ItemCode | Recode | None
    partition: int = 0


def code_tail(
    connection: Connection, topic: str, apply: Callable[[list[Word], Places], None], start: Mapping[int, int] | None = None
) -> Tail:
    """A tail that hands on every word, each partition's in order; a record that is none is logged and passed over."""
    return Tail(connection, topic, lambda records, places: apply(words(records), places), start)


def words(records: Sequence[Any]) -> list[Word]:
    """The words of records; what is none is logged and left out, since the topic is ours alone. A Recode taken back says nothing."""
    found = []
    for record in records:
        try:
            if record.key.startswith(RECODE):
                if record.value is not None:
                    found.append(Word(record.key[1:].decode(), _recodes.decode(record.value), record.partition))
            else:
                said = None if record.value is None else _item_codes.decode(record.value)
                found.append(Word(record.key.decode(), said, record.partition))
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError) as error:
            log.error("a record of %s is no item code and is passed over: %r", record.topic, error)
    return found


def newest(words: Sequence[Word]) -> tuple[dict[str, ItemCode | None], dict[str, Recode]]:
    """The last word on each item, and the last code of each that a refresh made."""
    items, recodes = {}, {}
    for word in words:
        if isinstance(word.said, Recode):
            recodes[word.item] = word.said
        else:
            items[word.item] = word.said
    return items, recodes
