"""Opens a store from its URL. Only this module knows the adapters."""

from pathlib import Path

from features.errors import StoreUnavailableError
from features.store import OnlineStore
from features.store.address import SCHEMES
from features.store.memory import MemoryStore
from features.store.redis import RedisStore
from features.store.sqlite import SqliteStore

FORMS = (
    "redis://[user:password@]host[:port][/db] (rediss:// with TLS; redis+cluster:// or rediss+cluster:// a cluster), "
    "sqlite:///path/to/file (four slashes for an absolute path), memory://"
)


def open_store(url: str | None, project: str = "everlong", create: bool = True) -> OnlineStore:
    """The online store at a URL. `create`: create a missing SQLite file.

    Raises:
        ValueError: the URL has an unknown form; the message names the known ones and does not repeat the URL.
        StoreUnavailableError: the SQLite file is missing or cannot be opened, or a cluster did not answer.
    """
    scheme, separator, rest = (url or "").partition("://")
    if url is not None and separator:
        if scheme in SCHEMES:
            return RedisStore(url, project)
        if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
            if not create and not Path(rest[1:]).exists():
                raise StoreUnavailableError(
                    f"there is no store at {rest[1:]}: a worker makes it; correct EVERLONG_STORE_URL if it is elsewhere"
                )
            return SqliteStore(rest[1:], project)
        if scheme == "memory" and not rest:
            return MemoryStore()
    raise ValueError(f"{'unknown store URL' if url else 'no store URL'}; EVERLONG_STORE_URL is one of: {FORMS}")
