"""Hostile inputs near good ones: bytes flipped, cut and joined, and values of JSON and MessagePack replaced by extremes."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

EXTREMES: list[Any] = [
    None, True, 0, -1, 3, 4, 99, 2**31, 2**52 + 1, 2**63 - 1, 2**63, -(2**63), 0.5, -0.0, 1e308, 3.5e38, "", "\0", "a\0b", "\x85", "\u200b",
    "\ufffd", "x" * 129, "\U0001f45f" * 128, [], [[]], {}, {"": None},
]  # fmt: skip
FLOATS = [float("nan"), float("inf"), -float("inf")]
RAW = [b"", b"\0", b"\xff\xfe", b"\xc1", b"[" * 5000, b'{"a":' * 2000, b"\x91" * 5000, b"\xed\xa0\x80", b"nul", b"1e999", b"9" * 5000]


def any_bytes(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Random bytes, the seeds with bytes changed, removed and put in, and pieces of two seeds joined."""
    seed = st.sampled_from(seeds)
    return st.one_of(seed, st.sampled_from(RAW), st.binary(max_size=200), _edited(seed), st.builds(_joined, seed, seed, st.floats(0, 1)))


def json_like(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """The seeds, which are JSON, with some values replaced, removed or nested; and what `any_bytes` gives."""
    changed = _changed(st.sampled_from([json.loads(seed) for seed in seeds]), EXTREMES)
    return st.one_of(any_bytes(seeds), changed.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")))


def rows_like(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """The seeds, which are MessagePack, with some values replaced, removed or nested; and what `any_bytes` gives."""
    changed = _changed(st.sampled_from([msgspec.msgpack.decode(seed) for seed in seeds]), [*EXTREMES, *FLOATS, b"", b"\xff" * 7])
    return st.one_of(any_bytes(seeds), changed.filter(_packable).map(msgspec.msgpack.encode))


@st.composite
def _edited(draw: st.DrawFn, seed: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(seed))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["change", "remove", "put", "cut"]))
        if what == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif what == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        elif what == "put":
            data[at:at] = draw(st.binary(max_size=8))
        elif what == "cut":
            del data[at:]
    return bytes(data)


def _joined(one: bytes, other: bytes, share: float) -> bytes:
    return one[: int(len(one) * share)] + other[int(len(other) * share) :]


@st.composite
def _changed(draw: st.DrawFn, seeds: st.SearchStrategy[Any], extremes: list[Any]) -> Any:
    value = draw(seeds)
    for _ in range(draw(st.integers(1, 3))):
        value = _replaced(draw, value, extremes, depth=0)
    return value


def _replaced(draw: st.DrawFn, value: Any, extremes: list[Any], depth: int) -> Any:
    """The value with one of its inner values (or all of it, seldom) replaced."""
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or (depth and draw(st.integers(0, 9)) == 0):
        return draw(st.sampled_from(extremes))
    at = draw(st.sampled_from(inner))
    copy = value.copy()
    if draw(st.integers(0, 9)) == 0:
        del copy[at]
    elif isinstance(value, list) and draw(st.integers(0, 9)) == 0:
        copy[at:at] = [value[at]] * draw(st.sampled_from([1, 2, 2000]))
    else:
        copy[at] = _replaced(draw, value[at], extremes, depth + 1)
    return copy


def _packable(value: Any) -> bool:
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, TypeError, ValueError):
        return False
    return True
