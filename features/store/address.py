"""Addresses of Valkey and Redis, parsed strictly: no part of a password is ever taken for a host, a path or an option.

An unquoted / ? or # ends the part of a URL that holds the password, so what follows it would be shown as a path. Such a URL is
refused, and the message does not repeat it.
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
PORT = 6379
MALFORMED = (
    "malformed store URL; it reads redis://[user:password@]host[:port][/db], with rediss for TLS and +cluster for a "
    "cluster; characters such as / # ? @ % in a password are written %2F %23 %3F %40 %25"
)
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_QUERY = re.compile(r"([a-z_]+=[^@]*)?")


class Address(NamedTuple):
    """A server's address, and the part of its URL that may be shown. `secret`: the URL contains a user name or a password."""

    scheme: str
    host: str
    port: int
    path: str
    secret: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse(url: str) -> Address:
    """The address in a URL.

    Raises:
        ValueError: it is malformed; the message names the expected form and does not repeat the URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError:  # the message may contain the password
        raise ValueError(MALFORMED) from None
    if parts.scheme not in SCHEMES or not _HOST.fullmatch(host) or not _is_whole(url, parts):
        raise ValueError(MALFORMED)
    return Address(parts.scheme, host, port, parts.path.rstrip("/"), "@" in parts.netloc)


def _is_whole(url: str, parts: SplitResult) -> bool:
    """Whether nothing after the host can be part of a password."""
    plain = url.isprintable() and " " not in url
    return plain and "#" not in url and re.fullmatch(r"(/[0-9]*)?", parts.path) is not None and _QUERY.fullmatch(parts.query) is not None
