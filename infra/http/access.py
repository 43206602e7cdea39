"""Authorisation over HTTP: bearer tokens, each with a scope."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from infra.errors import RequestError
from infra.settings import Settings

Scopes = frozenset["Scope"]
Given = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="A token of EVERLONG_API_READ_TOKENS, _WRITE_TOKENS or _ADMIN_TOKENS.")),
]


class Scope(StrEnum):
    """What a token allows. `admin` allows everything."""

    READ = "read"  # users, their features and candidates, items
    WRITE = "write"  # events of users: clicks, queries, orders
    ADMIN = "admin"  # the catalogue, which all users share


ALL = frozenset(Scope)


class Access:
    """The tokens of a process. Without any, everyone may do everything."""

    def __init__(self, settings: Settings) -> None:
        given = {Scope.READ: settings.api_read_tokens, Scope.WRITE: settings.api_write_tokens, Scope.ADMIN: settings.api_admin_tokens}
        self._tokens = [(_digest(token.get_secret_value()), scope) for scope, tokens in given.items() for token in tokens]

    def of(self, given: HTTPAuthorizationCredentials | None) -> Scopes:
        """The scopes of a request's sender.

        Raises:
            RequestError: 401, the token is missing or unknown.
        """
        if not self._tokens:
            return ALL
        if given is None:
            raise RequestError(401, "no_token", "send the header Authorization: Bearer TOKEN, with one of the API's tokens")
        digest = _digest(given.credentials)
        found = {scope for token, scope in self._tokens if compare_digest(token, digest)}  # all: the time reveals nothing
        if not found:
            raise RequestError(401, "wrong_token", "the token in the Authorization header is not one of the API's tokens")
        return ALL if Scope.ADMIN in found else frozenset(found)

    def needs(self, *scopes: Scope) -> Callable[[Given], Awaitable[Scopes]]:
        """A route's dependency: requires one of these scopes; gives all scopes of the sender.

        Raises:
            RequestError: 401 as `of`, 403 if the token has none of them.
        """

        async def check(given: Given = None) -> Scopes:
            return require(self.of(given), *scopes)

        return check


def require(held: Scopes, *scopes: Scope) -> Scopes:
    """The scopes held, if they include a required one.

    Raises:
        RequestError: 403, they do not.
    """
    if held.isdisjoint(scopes):
        names = " or ".join(f"EVERLONG_API_{scope.upper()}_TOKENS" for scope in dict.fromkeys([*scopes, Scope.ADMIN]))
        raise RequestError(403, "insufficient_scope", f"this token does not allow the request; use one of {names}")
    return held


def challenge(status: int, reason: str) -> dict[str, str]:
    """The WWW-Authenticate header of a response, if it needs one (RFC 6750)."""
    if status not in (401, 403):
        return {}
    error = {"wrong_token": ', error="invalid_token"', "insufficient_scope": ', error="insufficient_scope"'}.get(reason, "")
    return {"WWW-Authenticate": f'Bearer realm="everlong"{error}'}


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
