"""The four kinds of event and their wire format: JSON, UTF-8, decoded strictly into frozen structs.

Unknown fields are ignored. Invalid input is data, not an exception: `decode` returns (good, bad), and `bad` contains the reasons.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

import msgspec

from features.event_time import TimeRules

MAX_EVENT_BYTES = 64 * 1024
MAX_ORDER_LINES = 500
MAX_TEXT = 512
UNKNOWN_CATEGORY = "unknown"
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1e15)]  # well within float32, which indexes store prices in
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**52)]
Vector = Annotated[list[float], msgspec.Meta(max_length=4096)]


class Topic(StrEnum):
    """The four topics that events arrive on. Their names at the broker depend on settings."""

    CLICKS = "clicks"
    QUERIES = "queries"
    ORDERS = "orders"
    ITEMS = "items"


class Click(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user viewed an item, added it to the cart or marked it as a favourite. Key: user id. `ts` is milliseconds since the epoch."""

    event_id: Id
    user_id: Id
    item_id: Id
    category_id: Id
    ts: Milliseconds
    kind: Literal["click", "cart", "favourite"] = "click"
    query_id: Id | None = None
    session_id: Id | None = None
    position: Int32 | None = None
    v: Int32 = 1


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user searched. Key: user id."""

    event_id: Id
    user_id: Id
    query_id: Id
    text: Text
    ts: Milliseconds
    session_id: Id | None = None
    category_id: Id | None = None
    v: Int32 = 1


class OrderLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of an order. `price` is the unit price in the shop's currency."""

    item_id: Id
    category_id: Id
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    price: Price = 0.0


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user bought. Key: user id."""

    event_id: Id
    order_id: Id
    user_id: Id
    ts: Milliseconds
    lines: Annotated[list[OrderLine], msgspec.Meta(min_length=1, max_length=MAX_ORDER_LINES)]
    v: Int32 = 1


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of an item at `ts`. Key: item id. `deleted` removes it from retrieval.

    `inferred`: known from clicks and orders alone. A state that describes the item beats it, whatever their times
    (features.item_states).
    """

    item_id: Id
    category_id: Id
    title: Text
    ts: Milliseconds
    attributes: dict[str, str] = {}
    price: Price = 0.0
    image_embedding: Vector | None = None
    text_embedding: Vector | None = None
    deleted: bool = False
    inferred: bool = False
    v: Int32 = 1


Event = Click | Query | Order | Item
TYPES: dict[Topic, type[Event]] = {Topic.CLICKS: Click, Topic.QUERIES: Query, Topic.ORDERS: Order, Topic.ITEMS: Item}
_decoders = {topic: msgspec.json.Decoder(type_) for topic, type_ in TYPES.items()}
_encoder = msgspec.json.Encoder()


class _LooseItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item as producers send it: null means absent, a title may be too long, attributes may be numbers and booleans."""

    item_id: Id
    ts: Milliseconds
    category_id: Id | None = None
    title: str | None = None
    attributes: dict[str, str | int | float | bool | None] | None = None
    price: Price | None = None
    image_embedding: Vector | None = None
    text_embedding: Vector | None = None
    deleted: bool | None = None
    inferred: bool | None = None
    v: Int32 | None = None

    def item(self) -> Item:
        """The item event.

        Raises:
            msgspec.ValidationError: a field is missing that only a deletion may omit.
        """
        for field in ("category_id", "title"):
            if not self.deleted and getattr(self, field) is None and (field == "category_id" or not self.inferred):
                raise msgspec.ValidationError(f"Object missing required field `{field}`")
        return Item(
            item_id=self.item_id,
            category_id=self.category_id or UNKNOWN_CATEGORY,
            title=(self.title or "")[:MAX_TEXT],
            ts=self.ts,
            attributes={name: _as_text(value) for name, value in (self.attributes or {}).items() if value is not None},
            price=self.price or 0.0,
            image_embedding=self.image_embedding,
            text_embedding=self.text_embedding,
            deleted=bool(self.deleted),
            inferred=bool(self.inferred),
            v=1 if self.v is None else self.v,
        )


_loose_items = msgspec.json.Decoder(_LooseItem)


def _as_text(value: str | int | float | bool) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)


class Reason(StrEnum):
    """Why an event became a dead letter. Also the label of the metric."""

    EMPTY = "empty"
    OVERSIZED = "oversized"
    NOT_UTF8 = "not_utf8"
    BAD_JSON = "bad_json"
    WRONG_SHAPE = "wrong_shape"
    CONTROL_CHARACTER = "control_character"
    FUTURE = "future"
    BEYOND_RETENTION = "beyond_retention"
    WRONG_KEY = "wrong_key"
    WRONG_PARTITION = "wrong_partition"
    UNREADABLE_ROW = "unreadable_row"


class Refusal(NamedTuple):
    """An invalid payload: its position among those decoded, the reason, and a sentence for people."""

    position: int
    reason: Reason
    detail: str


class Decoded(NamedTuple):
    """The result of `decode`: (position, event) of each valid payload, and a refusal for each invalid one."""

    good: list[tuple[int, Event]]
    bad: list[Refusal]


def encode(event: Event) -> bytes:
    """The event in its wire format."""
    return _encoder.encode(event)


def key_of(event: Event) -> bytes:
    """The Kafka key that keeps all events of one user (or item) in one partition, in order."""
    return (event.item_id if isinstance(event, Item) else event.user_id).encode()


def parse(topic: Topic, payload: bytes) -> Event:
    """The event in a payload. Its time and ids are not checked.

    Raises:
        Exception: of msgspec, UTF-8 or nesting depth: arbitrary bytes can raise anything.
    """
    try:
        return _decoders[topic].decode(payload)
    except msgspec.ValidationError:
        if topic is not Topic.ITEMS:
            raise
    return _loose_items.decode(payload).item()


def decode(topic: Topic, payloads: Sequence[bytes | None], now_ms: int, rules: TimeRules) -> Decoded:
    """Decode the values of one topic's records. No payload raises an exception."""
    good: list[tuple[int, Event]] = []
    bad: list[Refusal] = []
    for position, payload in enumerate(payloads):
        if not payload:
            bad.append(Refusal(position, Reason.EMPTY, "the record has no value"))
        elif len(payload) > MAX_EVENT_BYTES:
            bad.append(Refusal(position, Reason.OVERSIZED, f"{len(payload)} bytes, more than {MAX_EVENT_BYTES}"))
        else:
            try:
                event = parse(topic, payload)
            except Exception as error:  # noqa: BLE001 - msgspec, UTF-8, nesting depth: arbitrary bytes can raise anything
                bad.append(Refusal(position, _reason(payload, error), str(error) + _framing(payload)))
                continue
            if _may_hold_controls(payload) and (field := _controlled(event)) is not None:
                bad.append(Refusal(position, Reason.CONTROL_CHARACTER, f"{field} holds a control character, which no id may"))
            elif (wrong := rules.refuse(event.ts, now_ms)) is not None:
                bad.append(Refusal(position, Reason(wrong[0]), wrong[1]))
            else:
                good.append((position, event))
    return Decoded(good, bad)


def _may_hold_controls(payload: bytes) -> bool:
    """Whether the event may contain a control character: C0 (which JSON escapes), DEL, or C1 in UTF-8."""
    return b"\\" in payload or b"\x7f" in payload or b"\xc2" in payload


def _controlled(event: Event) -> str | None:
    """The name of an event's first id that contains a control character."""
    for field in event.__struct_fields__:
        if field.endswith("_id") and (value := getattr(event, field)) is not None and CONTROLS.search(value):
            return field
    for number, line in enumerate(event.lines if isinstance(event, Order) else ()):
        for field in ("item_id", "category_id"):
            if CONTROLS.search(getattr(line, field)):
                return f"lines[{number}].{field}"
    return None


def _reason(payload: bytes, error: Exception) -> Reason:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return Reason.NOT_UTF8
    return Reason.WRONG_SHAPE if isinstance(error, msgspec.ValidationError) else Reason.BAD_JSON


def _framing(payload: bytes) -> str:
    """A sentence on the framing that a producer put around the event, if the bytes show one, with the remedy; else empty."""
    if payload[0] == 0:
        return ": it begins with byte 0, as records of a schema registry do; produce plain JSON"
    if payload.startswith(b'{"schema":') or (b'"payload":' in payload[:4096] and b'"op":' in payload):
        return ": it looks like an envelope of Kafka Connect or Debezium; set schemas.enable=false and unwrap it (ExtractNewRecordState)"
    return ""
