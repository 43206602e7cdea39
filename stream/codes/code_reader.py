"""The tail of topic `item-codes`: every refresh worker reads all partitions and keeps reading, and so does the keeper of codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stream.kafka.connection import Connection
from stream.kafka.messages import RECODE, ItemCode, Recode, Skipped, decode
from stream.kafka.skips import Skips
from stream.kafka.topic_reader import Places, Tail
from stream.kafka.topics import ITEM_CODES


class Word(NamedTuple):
    """What a record says of an item: all of it, a new code alone, or (None) that it is gone. `partition` is where it lies."""

    item: str
    said: ItemCode | Recode | None
    partition: int = 0


def code_tail(
    connection: Connection,
    topic: str,
    apply: Callable[[list[Word], Places], None],
    start: Mapping[int, int] | None = None,
    skips: Skips | None = None,
) -> Tail:
    """A tail that hands on every word, each partition's in order; a record that is none goes to `skips`."""
    seen = skips or Skips()
    return Tail(connection, topic, lambda records, places: apply(words(records, seen), places), start)


def words(records: Sequence[Any], skips: Skips) -> list[Word]:
    """The words of records; a record that is none goes to `skips`. A Recode taken back says nothing."""
    found = []
    for record in records:
        word = _word(record)
        if isinstance(word, Skipped):
            skips.add(record, ITEM_CODES, word)
        elif word is not None:
            found.append(word)
    return found


def _word(record: Any) -> Word | Skipped | None:
    key: bytes = record.key or b""
    recode = key.startswith(RECODE)
    try:
        item = key.removeprefix(RECODE).decode()
    except UnicodeDecodeError:
        return Skipped("wrong_key", "its key is not UTF-8")
    if not item:
        return Skipped("wrong_key", "its key names no item")
    if record.value is None:
        return None if recode else Word(item, None, record.partition)
    said = decode(Recode, record.value) if recode else decode(ItemCode, record.value)
    if isinstance(said, Skipped):
        return said
    if said.item_id != item:
        return Skipped("wrong_key", "its key names another item than its value")
    return Word(item, said, record.partition)


def newest(words: Sequence[Word]) -> tuple[dict[str, ItemCode | None], dict[str, Recode]]:
    """The last word on each item, and the last code of each that a refresh made."""
    items, recodes = {}, {}
    for word in words:
        if isinstance(word.said, Recode):
            recodes[word.item] = word.said
        else:
            items[word.item] = word.said
    return items, recodes
