"""The online store in Valkey or Redis, one server or a cluster, in the layout of Feast's `type: redis`.

A row is three fields of the hash at (entity key, project): a user's views share one hash. A write is a Lua script that
compares the stored log position first; one call writes up to a hundred rows, on a cluster those of one slot.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.crc import key_slot
from redis.retry import Retry

from features.errors import StoreUnavailableError
from features.quarantine import MOST_ROWS, Quarantined, decode_all, encode
from features.store import Key, Stored
from features.store.address import parse
from features.store.layout import (
    HASH_FIELDS,
    bytes_value,
    entity_key,
    milliseconds,
    position_value,
    stored_of,
    timestamp,
)

CALL_ROWS = 100  # per script call, which blocks the server for about a millisecond
CALL_BYTES = 64 * 1024  # beyond this, one call is slower than several in a pipeline

# KEYS: hashes. ARGV: names of the fields applied, row, ts; then these three values of each key. Gives the refused, from 1.
# Numbers are compared as decimal text, length first: Lua's own would lose offsets beyond 2^53. What is no log position is older than any,
# and a key of another type than a hash gives way.
SCRIPT = """
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function numbers(applied)
  local e, c, q, o = string.match(applied, 'v:(%d+):(%d+):(%d+):(%d+)$')
  if e and #e > 9 then return nil end
  for _, number in ipairs({e, c, q, o}) do
    if less('9223372036854775807', number) then return nil end
  end
  return e, c, q, o
end
local refused = {}
local parsed, e, c, q, o
for i = 1, #KEYS do
  local applied = ARGV[3 * i + 1]
  local stored = redis.pcall('HGET', KEYS[i], ARGV[1])
  if type(stored) == 'table' then
    redis.call('DEL', KEYS[i])
    stored = false
  end
  local older = false
  if stored and stored ~= applied then
    local e0, c0, q0, o0 = numbers(stored)
    if e0 then
      if applied ~= parsed then parsed, e, c, q, o = applied, numbers(applied) end
      if e ~= e0 then older = less(e, e0) else older = less(c, c0) or less(q, q0) or less(o, o0) end
    end
  end
  if older then
    refused[#refused + 1] = i
  else
    redis.call('HSET', KEYS[i], ARGV[1], applied, ARGV[2], ARGV[3 * i + 2], ARGV[3], ARGV[3 * i + 3])
  end
end
return refused
"""
_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
# All commands that an ACL user needs; those from `del` on only for unreadable rows and `everlong quarantine`.
COMMANDS = ("hmget", "evalsha", "script|load", "hget", "hset", "client|setname", "del", "dump", "hlen", "hvals", "hdel")
CLUSTER_ONLY = (  # only a cluster node gives this answer
    redis.exceptions.ClusterCrossSlotError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,  # MovedError too
)
Answer = TypeVar("Answer")


class _Call(NamedTuple):
    """One script call: positions of its rows in the batch, their hashes, its arguments."""

    positions: list[int]
    keys: list[bytes]
    arguments: list[bytes]


class RedisStore:
    """Rows in Valkey or Redis. Thread-safe; connects at first use, a cluster at once.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss:// for TLS; with +cluster the first node of a cluster.
            Options of redis-py follow `?`, such as ssl_ca_certs, socket_timeout.
        project: Feast project.
        timeout_s: timeout of a connection attempt and of an answer, for each of `retries` retries.
        retries: how often one call reconnects after a lost connection.

    Raises:
        ValueError: the URL is malformed or has an unknown option; the message does not repeat it, since it may contain a password.
        StoreUnavailableError: a cluster did not answer.
    """

    def __init__(self, url: str, project: str = "everlong", timeout_s: float = 3.0, retries: int = 2) -> None:
        self._project, self._apart = project.encode(), f"{project}:quarantine"
        address = parse(url)
        self._place = str(address)
        self._cluster = address.scheme.endswith("+cluster")
        self._timeout_s = timeout_s
        plain = url.replace("+cluster", "", 1)
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "socket_keepalive": True,
            "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), retries),
            "client_name": "everlong",
        }
        pool = redis.ConnectionPool.from_url(plain, **options)
        _check_options(pool.connection_class, pool.connection_kwargs)
        connect = redis.RedisCluster.from_url if self._cluster else redis.Redis.from_url
        self._client: Any = self._ask(lambda: connect(plain, **options))

    def __repr__(self) -> str:
        return f"RedisStore({self._place})"

    def read(self, keys: Sequence[Key]) -> list[Stored | None]:
        """See `OnlineStore.read`."""
        if not keys:
            return []
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command("HMGET", self._hash(key), *HASH_FIELDS[key.view])
        answers = self._ask(lambda: pipe.execute(raise_on_error=False))
        for at, answer in enumerate(answers):
            if isinstance(answer, redis.exceptions.ResponseError) and str(answer).startswith("WRONGTYPE"):
                answers[at] = None, self._dump(keys[at]), None
        self._refuse_errors(answers)
        return [stored_of(applied, packed, milliseconds(ts)) for applied, packed, ts in answers]

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        """See `OnlineStore.write`."""
        written = [True] * len(rows)
        calls = list(self._calls(rows))
        answers = self._run(calls)
        first_lost = next((at for at, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)), None)
        if first_lost is not None:
            self._ask(lambda: self._client.script_load(SCRIPT))
            answers[first_lost:] = self._run(calls[first_lost:])
        self._refuse_errors(answers)
        for call, refused in zip(calls, answers, strict=True):
            for at in refused:
                written[call.positions[at - 1]] = False
        return written

    def _dump(self, key: Key) -> bytes | None:
        """The bytes of a key that is not a hash."""
        found: bytes | None = self._ask(lambda: self._client.dump(self._hash(key)))
        return found

    def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """See `OnlineStore.quarantine`. They are fields of one hash, PROJECT:quarantine."""
        if rows and (room := MOST_ROWS - self._ask(lambda: self._client.hlen(self._apart))) > 0:
            records: Any = {row.id: encode(row) for row in rows[:room]}
            self._ask(lambda: self._client.hset(self._apart, mapping=records))

    def quarantined(self) -> list[Quarantined]:
        """See `OnlineStore.quarantined`."""
        return decode_all(self._ask(lambda: self._client.hvals(self._apart)))

    def release(self, ids: Collection[str]) -> None:
        """See `OnlineStore.release`."""
        if ids:
            self._ask(lambda: self._client.hdel(self._apart, *ids))

    def close(self) -> None:
        """See `OnlineStore.close`."""
        self._client.close()

    def _hash(self, key: Key) -> bytes:
        return entity_key(key.view, key.entities) + self._project

    def _calls(self, rows: Sequence[tuple[Key, Stored]]) -> Iterator[_Call]:
        """The rows as script calls of one view (and slot) each; rows of one key keep their order."""
        open_calls: dict[tuple[str, int], tuple[_Call, int]] = {}
        for position, (key, row) in enumerate(rows):
            hash_key = self._hash(key)
            group = key.view, key_slot(hash_key) if self._cluster else 0
            call, size = open_calls.get(group) or (_Call([], [], list(HASH_FIELDS[key.view])), 0)
            call.positions.append(position)
            call.keys.append(hash_key)
            call.arguments.extend((position_value(row.log_position), bytes_value(row.packed), timestamp(row.ts_ms)))
            size += len(row.packed)
            if len(call.keys) >= CALL_ROWS or size >= CALL_BYTES:
                open_calls.pop(group, None)
                yield call
            else:
                open_calls[group] = call, size
        yield from (call for call, _ in open_calls.values())

    def _run(self, calls: Sequence[_Call]) -> list[Any]:
        """The answers of the calls, including errors of the server; one round trip."""
        if not calls:
            return []
        pipe = self._client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command("EVALSHA", _SHA, len(call.keys), *call.keys, *call.arguments)
        return self._ask(lambda: pipe.execute(raise_on_error=False))

    def _refuse_errors(self, answers: Sequence[Any]) -> None:
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._unavailable(answer) from answer

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer of the server; the one place where errors of the client library are translated."""
        try:
            return question()
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        kinds = redis.exceptions
        text = str(error)
        if isinstance(error, kinds.ReadOnlyError) or text.startswith("READONLY"):
            text = "it is a read-only replica; give the address of the primary"
        elif isinstance(error, kinds.OutOfMemoryError) or text.startswith("OOM"):
            text = "it has no memory left (maxmemory); give it more or set an eviction policy for other keys"
        elif isinstance(error, kinds.AuthenticationError):
            text = "it refused the user name or password"
        elif isinstance(error, kinds.NoPermissionError):
            text = f"{text}; docs/access.md lists the commands that its user needs"
        elif isinstance(error, CLUSTER_ONLY) and not self._cluster:
            scheme, _, rest = self._place.partition("://")
            url = f"{scheme}+cluster://{rest.partition('/')[0]}"
            text = f"it is a node of a cluster: set EVERLONG_STORE_URL to {url}, with user and password if any"
        elif isinstance(error, kinds.TimeoutError):
            text = f"nothing within {self._timeout_s:g} s"
        return StoreUnavailableError(f"{self._place}: {text}")


def _check_options(kind: type, options: Mapping[str, Any]) -> None:
    """Check the options after `?` before the first connection.

    Raises:
        ValueError: the client does not know one, or it names a missing file.
    """
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if options.get(name) and not Path(options[name]).is_file():
            raise ValueError(f"the store URL names a file that is not there: {name}={options[name]}")
    try:
        kind(**options)
    except TypeError as error:
        named = re.search(r"argument '([a-z_]{1,40})'", str(error))
        name = f" ({named[1]})" if named else ""
        raise ValueError(
            f"the store URL has an option that redis-py does not know{name}: correct it or leave it out; it takes ssl_ca_certs, "
            "ssl_certfile, ssl_keyfile, socket_timeout and the like"
        ) from None
