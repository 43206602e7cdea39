"""Readers of the topics `item-codes` and `codebooks`. Only Everlong writes these; invalid records are counted and skipped."""

from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

from stream.codes.codebook_registry import CodebookRegistry
from stream.kafka.connection import Connection
from stream.kafka.messages import RECODE, ItemCode, Recode, Skipped, Skips, decode
from stream.kafka.topic_reader import Offsets, TopicReader
from stream.kafka.topics import ITEM_CODES

READ_S = 60.0


class CodeRecord(NamedTuple):
    """A record of `item-codes`: an item's vector and code, its code alone, or (None) its deletion. `partition` is where it was read."""

    item: str
    value: ItemCode | Recode | None
    partition: int = 0


def code_reader(
    connection: Connection,
    topic: str,
    apply: Callable[[list[CodeRecord], Offsets], None],
    start: Mapping[int, int] | None = None,
    skips: Skips | None = None,
) -> TopicReader:
    """A reader of `item-codes` that calls `apply` with batches of records, each partition's in order."""
    seen = skips or Skips()
    return TopicReader(connection, topic, lambda records, offsets: apply(decode_codes(records, seen), offsets), start)


def decode_codes(records: Sequence[Any], skips: Skips) -> list[CodeRecord]:
    """The valid ones of these consumer records; the others go to `skips`. A deleted Recode is left out: it changes nothing."""
    found = []
    for record in records:
        code = _decode_code(record)
        if isinstance(code, Skipped):
            skips.add(record, ITEM_CODES, code)
        elif code is not None:
            found.append(code)
    return found


def _decode_code(record: Any) -> CodeRecord | Skipped | None:
    key: bytes = record.key or b""
    recode = key.startswith(RECODE)
    try:
        item = key.removeprefix(RECODE).decode()
    except UnicodeDecodeError:
        return Skipped("wrong_key", "its key is not UTF-8")
    if not item:
        return Skipped("wrong_key", "its key names no item")
    if record.value is None:
        return None if recode else CodeRecord(item, None, record.partition)
    value = decode(Recode, record.value) if recode else decode(ItemCode, record.value)
    if isinstance(value, Skipped):
        return value
    if value.item_id != item:
        return Skipped("wrong_key", "its key names another item than its value")
    return CodeRecord(item, value, record.partition)


def newest(records: Sequence[CodeRecord]) -> tuple[dict[str, ItemCode | None], dict[str, Recode]]:
    """By item: the last state (None: deleted), and the last Recode."""
    items, recodes = {}, {}
    for item, value, _ in records:
        if isinstance(value, Recode):
            recodes[item] = value
        else:
            items[item] = value
    return items, recodes


class CodebookReader:
    """Keeps a registry up to date with the topic `codebooks`."""

    def __init__(self, connection: Connection, topic: str, skips: Skips | None = None) -> None:
        self.registry = CodebookRegistry(skips)
        self._reader = TopicReader(connection, topic, self.registry.apply)

    def start(self, stopping: Event, seconds: float = READ_S) -> None:
        """Return once the registry holds everything that the topic held at the start.

        Raises:
            TimeoutError: it could not be read in time.
        """
        self._reader.start()
        try:
            self._reader.catch_up(stopping, seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the reader."""
        self._reader.stop()

    @property
    def failure(self) -> BaseException | None:
        """What ended the reader, None while it runs."""
        return self._reader.failure
