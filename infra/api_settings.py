"""Settings of what listens on HTTP: address, tokens, hosts and limits. `infra.settings` reads them with all others."""

import re
from ipaddress import ip_address
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from infra.errors import UnprotectedApiError

Names = Annotated[tuple[str, ...], NoDecode]
Tokens = Annotated[tuple[SecretStr, ...], NoDecode]
Bound = Annotated[float, Field(gt=0)]
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
ANY_HOST = ("*",)


class ApiSettings(BaseSettings):
    """The part of `infra.settings.Settings` about HTTP."""

    http_host: str = Field(
        "127.0.0.1",
        description="Address that API, page and metrics listen on; `0.0.0.0` inside a container. Beyond this machine the API wants tokens.",
    )
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port of API and page; 0: a free one.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port of a worker's metrics and health; 0: a free one, printed at start."
    )
    api_read_tokens: Tokens = Field(
        (),
        description="Bearer tokens that allow reading users, candidates, features and items, separated by commas, 16 characters or more. "
        "As soon as any token of any kind is set, every request needs one (docs/security.md).",
    )
    api_write_tokens: Tokens = Field((), description="Bearer tokens that allow sending clicks, queries and orders.")
    api_admin_tokens: Tokens = Field((), description="Bearer tokens that allow everything, and alone allow sending items.")
    api_allow_anonymous: bool = Field(
        False, description="Let the API start without any token on an address that other machines reach: everybody may do everything."
    )
    api_allowed_hosts: Names = Field(
        (),
        description="Host names the API answers to, separated by commas (`*.shop.example` too); `*`: any. "
        "Unset: `localhost`, `127.0.0.1`, `::1` where it listens on this machine only, else any.",
    )
    api_trusted_proxies: Names = Field(
        (), description="Addresses of reverse proxies whose `X-Forwarded-For` names the client, separated by commas. Unset: none."
    )
    api_cors_origins: Names = Field((), description="Web origins whose pages may call the API, separated by commas. Unset: none.")
    api_list_users: bool = Field(True, description="Let `/v1/users` name the users of the newest candidate sets; false: it names none.")
    api_body_limit: Annotated[int, Field(ge=1)] = Field(1_048_576, description="Bytes of the largest request body.")
    api_max_events: Annotated[int, Field(ge=1)] = Field(1000, description="Most events in one request.")
    api_max_k: int = Field(1000, ge=1, le=1000, description="Most candidates in one answer.")
    api_connections: Annotated[int, Field(ge=1)] = Field(
        1000, description="Most connections at once, and so most requests at once; further ones get a 503."
    )
    api_rate: Annotated[float, Field(ge=0)] = Field(
        1000.0, description="Requests a second of one client address, twice as many at once; beyond that it gets a 429. 0: no bound."
    )
    api_head_timeout_s: Bound = Field(10.0, description="Seconds until a connection has sent a request's headers.")
    api_body_timeout_s: Bound = Field(
        30.0, description="Seconds until a request's body is there; also how long a client may stop reading its answer."
    )
    api_idle_timeout_s: Annotated[int, Field(ge=1)] = Field(15, description="Seconds that a connection may wait for its next request.")

    @field_validator(
        *("api_read_tokens", "api_write_tokens", "api_admin_tokens", "api_allowed_hosts", "api_trusted_proxies", "api_cors_origins"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("api_read_tokens", "api_write_tokens", "api_admin_tokens")
    @classmethod
    def _check_tokens(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(TOKEN.fullmatch(token.get_secret_value()) for token in value):
            raise ValueError("each token has 16 to 256 of the characters A-Z a-z 0-9 . _ ~ + / = -; `openssl rand -hex 32` makes one")
        return value

    @model_validator(mode="after")
    def _check_anonymous(self) -> Self:
        if self.api_allow_anonymous and self.has_tokens:
            raise ValueError("EVERLONG_API_ALLOW_ANONYMOUS is true, but tokens are set: unset one or the other")
        return self

    @property
    def has_tokens(self) -> bool:
        """Whether requests need a token."""
        return bool(self.api_read_tokens or self.api_write_tokens or self.api_admin_tokens)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches what listens."""
        try:
            return self.http_host == "localhost" or ip_address(self.http_host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """The host names that the API answers to."""
        return self.api_allowed_hosts or ((*LOOPBACK_NAMES, self.http_host) if self.on_loopback else ANY_HOST)

    def check_access(self) -> None:
        """Check that the API may be started on its address.

        Raises:
            UnprotectedApiError: other machines would reach it without a token.
        """
        if not self.on_loopback and not self.has_tokens and not self.api_allow_anonymous:
            raise UnprotectedApiError(
                f"the API would answer everybody who reaches {self.http_host}: set EVERLONG_API_ADMIN_TOKENS (docs/security.md), "
                "or listen on EVERLONG_HTTP_HOST=127.0.0.1, or set EVERLONG_API_ALLOW_ANONYMOUS=true"
            )
