"""Settings of the HTTP servers: address, tokens, hosts and limits. `infra.settings` reads them with all others."""

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
        description="Address that API, page and metrics listen on; `0.0.0.0` in a container. "
        "If other machines can reach it, the API requires tokens.",
    )
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port of the API and the page; 0: a free one.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port of a worker's metrics and health; 0: a free one, printed at start."
    )
    api_read_tokens: Tokens = Field(
        (),
        description="Bearer tokens that allow reading users, candidates, features and items; comma-separated, 16 characters or more. "
        "If a token of any kind is set, every request needs one (docs/security.md).",
    )
    api_write_tokens: Tokens = Field((), description="Bearer tokens that allow sending clicks, queries and orders.")
    api_admin_tokens: Tokens = Field((), description="Bearer tokens that allow everything; only these allow sending items.")
    api_allow_anonymous: bool = Field(
        False,
        description="Let the API start without tokens on an address that other machines can reach. Everyone is then allowed everything.",
    )
    api_allowed_hosts: Names = Field(
        (),
        description="Host names that the API answers to, separated by commas (also `*.shop.example`); `*`: any. "
        "Unset: `localhost`, `127.0.0.1`, `::1` if it listens on this machine only, else any.",
    )
    api_trusted_proxies: Names = Field(
        (), description="Addresses of reverse proxies whose `X-Forwarded-For` names the client, separated by commas. Unset: none."
    )
    api_cors_origins: Names = Field((), description="Web origins whose pages may call the API, separated by commas. Unset: none.")
    api_list_users: bool = Field(True, description="Let `/v1/users` list the users of the newest candidate sets; false: it lists none.")
    api_body_limit: Annotated[int, Field(ge=1)] = Field(1_048_576, description="Maximum bytes of a request body.")
    api_max_events: Annotated[int, Field(ge=1)] = Field(1000, description="Maximum events in one request.")
    api_max_k: int = Field(1000, ge=1, le=1000, description="Maximum candidates in one response.")
    api_connections: Annotated[int, Field(ge=1)] = Field(
        1000, description="Maximum connections, and so concurrent requests; further ones get a 503."
    )
    api_rate: Annotated[float, Field(ge=0)] = Field(
        1000.0,
        description="Requests per second from one client address, with bursts of twice as many; beyond that it gets a 429. 0: no limit.",
    )
    api_head_timeout_s: Bound = Field(10.0, description="Maximum seconds for sending a request's headers.")
    api_body_timeout_s: Bound = Field(
        30.0, description="Maximum seconds for sending a request's body; also how long a client may pause while reading the response."
    )
    api_idle_timeout_s: Annotated[int, Field(ge=1)] = Field(15, description="Seconds that an idle connection is kept.")

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
            raise ValueError("a token has 16 to 256 characters out of A-Z a-z 0-9 . _ ~ + / = -; `openssl rand -hex 32` makes one")
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
        """Whether the server listens on this machine only."""
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
