"""Settings: the only reader of the environment. Every variable starts with EVERLONG_; docs/settings.md is generated from them."""

import logging
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from features.event_time import TimeRules
from features.store import MOST_EPOCH
from features.store.address import SCHEMES, parse
from infra.api_settings import ApiSettings
from infra.errors import SettingsError
from infra.masking import STORE_SCHEMES, mask
from models.config.retrieval import MOST, MOST_DEMAND, Shares

PREFIX = "EVERLONG_"
TEST_PREFIX = PREFIX + "TEST_"  # read by the test suite only
SET_BY_FEAST = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
KAFKA_PORT = 9092
BROKER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\])(:(?P<port>[0-9]{1,5}))?")

FROM_FILE = "_FILE"  # suffix of a secret's variable: names a file that contains the secret
GONE = {
    "EVERLONG_API_TOKEN": "use a variable by scope: EVERLONG_API_READ_TOKENS, EVERLONG_API_WRITE_TOKENS, EVERLONG_API_ADMIN_TOKENS",
}

_log = logging.getLogger("everlong.settings")
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Millis = Annotated[int, Field(ge=1)]
Part = Annotated[float, Field(ge=0, le=MOST)] | None


class Settings(ApiSettings):
    """The configuration of this process, frozen. Use `load_settings`, which explains invalid values."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True)

    kafka_bootstrap: str | None = Field(
        None,
        description="Brokers as `host:port,host:port`, IPv6 addresses in brackets; without a port it is 9092. "
        "Unset: the embedded broker, on this machine only.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Protocol of the connection to the brokers."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, with a SASL protocol."
    )
    kafka_sasl_username: str | None = Field(None, description="SASL user.")
    kafka_sasl_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_ssl_cafile: Path | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates. Unset: the system's."
    )
    kafka_ssl_certfile: Path | None = Field(None, description="PEM file of the client certificate, if the brokers require one.")
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file of the client certificate's key.")
    topic_prefix: str = Field(
        "", pattern=r"^[a-zA-Z0-9._-]{0,100}$", description="Prefix of every topic's name, so that several shops can share a cluster."
    )
    partitions: Count = Field(4, description="Partitions of the topics that Everlong creates: the maximum number of workers per role.")
    replication: Count = Field(1, description="Replicas of each partition of the topics that Everlong creates; 3 in production.")
    group: str = Field("everlong", min_length=1, description="Prefix of the consumer groups' names.")
    epoch: int = Field(
        0,
        ge=0,
        le=MOST_EPOCH,
        description="Raise by one after topics were recreated (their offsets start again), so that rows accept new events.",
    )
    rows_from_epoch: int = Field(
        0, ge=0, description="Rows of an older epoch start from nothing. Set it to EVERLONG_EPOCH when all events are sent again."
    )
    session_timeout_s: Seconds = Field(10.0, description="Seconds until a silent worker loses its partitions: how long a takeover takes.")
    heartbeat_s: Seconds = Field(3.0, description="Seconds between a worker's heartbeats; at most a third of the session timeout.")
    commit_interval_s: Seconds = Field(2.8, description="Seconds between commits: after a kill, up to this much is delivered again.")

    store_url: SecretStr | None = Field(
        None,
        description="`redis://[user:password@]host[:port][/db]`; `rediss://` with TLS (authority: `?ssl_ca_certs=FILE`); "
        "`redis+cluster://` or `rediss+cluster://` a cluster; `sqlite:///FILE`; `memory://` for one process. Unset: the embedded Valkey.",
    )
    cached_events: Count = Field(
        1_000_000,
        description="Events, queries, categories and purchases in the rows that an ingest worker keeps in memory: 150 to 300 bytes each.",
    )

    data_dir: Path = Field(Path(".everlong"), description="Where embedded broker, embedded store and trained bundles live.")
    bundle: Path | None = Field(
        None, description="Folder of the bundle (weights, vocabulary, codebooks). Unset: `bundle` in the data directory."
    )
    bundle_poll_s: Seconds = Field(5.0, description="Seconds between checks for a new bundle.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run; `auto` uses CUDA if a kernel runs on it.")
    torch_threads: int = Field(0, ge=0, description="Threads of torch and faiss in a worker; 0: their default. Numpy always uses one.")

    codes_measure_s: Seconds = Field(60.0, description="Seconds between measurements of the drift of item codes from their vectors.")
    codes_automatic: bool = Field(True, description="Refresh codes when measurements call for it; false: only on `everlong codes refresh`.")
    codes_rest_s: Seconds = Field(600.0, description="Minimum seconds between two automatic refreshes of codes.")
    codes_reservoir: int = Field(16_384, ge=256, description="Item vectors on which drift is measured.")
    codes_gain: Share = Field(0.05, description="Share of quantisation error that a refresh must save on items that it was not trained on.")
    codes_lost: Share = Field(0.05, description="Loss of overlap with exact search that triggers a refresh.")
    snapshot_s: Seconds = Field(
        300.0, description="Seconds between snapshots of a refresh worker's index in the data directory; a restart loads the last one."
    )

    max_future_ms: Annotated[int, Field(ge=0)] = Field(
        TimeRules().max_future_ms, description="An event further ahead of the clock is a dead letter."
    )
    retention_ms: Millis = Field(TimeRules().retention_ms, description="An event older than this is a dead letter.")
    refresh_batch: Count = Field(256, description="Maximum users refreshed in one batch.")
    refresh_lag_budget: Count = Field(
        5000, description="With more refresh requests waiting than this, only the short interest is computed."
    )
    top_k_categories: int = Field(8, ge=1, le=63, description="Category interests searched per user.")
    candidates: int = Field(200, ge=1, le=1000, description="Items in a candidate set.")
    exclude_bought: bool | None = Field(
        None,
        description="Exclude the newest 256 items that the user bought; false where people buy the same item again. Unset: what training "
        "chose by the log.",
    )
    short_share: Part = Field(
        None, description="Share of the searches' candidates that come from the search of the whole pool. Unset: the bundle's."
    )
    even_share: Part = Field(None, description="Share of the categories' candidates that is split equally among them. Unset: the bundle's.")
    repeat_share: Part = Field(
        None, description="Share of a set for items that the user interacted with before (docs/retrieval.md); 0: none. Unset: the bundle's."
    )
    query_share: Part = Field(
        None,
        description="Share of a candidate set for a search that no event followed yet (docs/retrieval.md); 0: none. Unset: the bundle's.",
    )
    demand: Annotated[float | None, Field(ge=0, le=MOST_DEMAND)] = Field(
        None,
        description="Weight of recent popularity in the order of what searches find (docs/retrieval.md); 0: none. Unset: the bundle's.",
    )
    only_available: bool = Field(True, description="Exclude items whose attribute `available` or `in_stock` is false, 0 or no.")
    retry_max_s: Seconds = Field(10.0, description="Maximum seconds between two attempts of a failing write or publication.")
    stop_deadline_s: Seconds = Field(
        20.0, description="Seconds that a worker may take to stop; then it exits at once, so that missing brokers cannot block it."
    )
    stall_after_s: Seconds = Field(
        60.0,
        description="If a partition with waiting records makes no progress for this many seconds, the worker becomes unready and exits.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Minimum level of logged lines; never `DEBUG` for the Kafka libraries, which would log the SASL password."
    )

    @field_validator("kafka_bootstrap")
    @classmethod
    def _name_ports(cls, value: str | None) -> str | None:
        return None if value is None else ",".join(_address(server) for server in value.split(","))

    @field_validator("store_url")
    @classmethod
    def _check_store_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            scheme, found, rest = value.get_secret_value().partition("://")
            wrong = bool(rest) if scheme == "memory" else not rest.startswith("/") if scheme == "sqlite" else not rest
            if scheme not in STORE_SCHEMES or not found or wrong:
                raise ValueError("write redis://host:port, rediss://host:port or sqlite:///FILE, or unset it for the embedded store")
            if scheme in SCHEMES:
                parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(
                f"{PREFIX}KAFKA_SECURITY_PROTOCOL is {self.kafka_security_protocol}: "
                f"set {PREFIX}KAFKA_SASL_USERNAME and {PREFIX}KAFKA_SASL_PASSWORD too"
            )
        if self.kafka_security_protocol != "PLAINTEXT" and self.kafka_bootstrap is None:
            raise ValueError(f"{PREFIX}KAFKA_SECURITY_PROTOCOL is set, {PREFIX}KAFKA_BOOTSTRAP is not: the embedded broker is plain text")
        if self.rows_from_epoch > self.epoch:
            raise ValueError(f"{PREFIX}ROWS_FROM_EPOCH must not be above {PREFIX}EPOCH: raise both together")
        if self.heartbeat_s * 3 > self.session_timeout_s:
            raise ValueError(f"{PREFIX}HEARTBEAT_S must be at most a third of {PREFIX}SESSION_TIMEOUT_S: lower it or raise that")
        return self

    @property
    def bundle_path(self) -> Path:
        """The bundle's folder, as configured or the default one."""
        return self.bundle or self.data_dir / "bundle"

    @property
    def shares(self) -> dict[str, float]:
        """The configured shares, by their names in models.config.retrieval."""
        given = {name: getattr(self, f"{name}_share") for name in Shares.__struct_fields__}
        return {name: share for name, share in given.items() if share is not None}

    @property
    def time_rules(self) -> TimeRules:
        """The time stamps that events may have."""
        return TimeRules(self.max_future_ms, self.retention_ms)


def load_settings(**given: Any) -> Settings:
    """The settings of this process: those given (a command's options) override the environment, which overrides the defaults.

    Logs a warning for each unknown EVERLONG_ variable, with the most similar known one.

    Raises:
        SettingsError: a value is invalid; the message names the variable and the remedy.
    """
    for sentence in unknown_variables(os.environ):
        _log.warning(sentence)
    if gone := [f"{name} is no longer a setting: {remedy}" for name, remedy in GONE.items() if name in os.environ]:
        raise SettingsError("\n".join(gone))
    try:
        return Settings(**_from_files(os.environ), **{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(wrong) for wrong in error.errors(include_url=False, include_input=False))) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each unknown EVERLONG_ variable, with the most similar known one."""
    known = [*map(variable, Settings.model_fields), *(variable(name) + FROM_FILE for name in secret_settings()), *GONE]
    sentences = []
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and not name.upper().startswith(TEST_PREFIX) and name.upper() not in known:
            near = get_close_matches(name.upper(), known, n=1)
            sentences.append(
                f"{name} is not a setting and is ignored" + (f"; did you mean {near[0]}?" if near else "; see docs/settings.md")
            )
    return sentences


def describe(settings: Settings) -> str:
    """Every variable and its value, one per line, with secrets masked."""
    return "\n".join(f"{variable(name)}={shown(getattr(settings, name))}" for name in Settings.model_fields)


def secret_settings() -> list[str]:
    """The settings that are secrets, and may be read from a file."""
    return [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def _from_files(environment: Mapping[str, str]) -> dict[str, Any]:
    """The secrets in files that are named by a variable with `_FILE`, without the trailing newline.

    Raises:
        SettingsError: a file cannot be read, or both variables are set.
    """
    found: dict[str, Any] = {}
    for name in secret_settings():
        file_variable = variable(name) + FROM_FILE
        if not (path := environment.get(file_variable)):
            continue
        if environment.get(variable(name)):
            raise SettingsError(f"{file_variable} and {variable(name)} are both set", "unset one of them")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsError(f"{file_variable}: {path} cannot be read ({reason})", "correct the path or unset it") from None
        if not found[name]:
            raise SettingsError(f"{file_variable}: {path} is empty", "write the secret to it or unset the variable")
    return found


def _address(server: str) -> str:
    """A broker as "host:port".

    Raises:
        ValueError: it is malformed.
    """
    found = BROKER.fullmatch(server.strip())
    port = int(found["port"] or KAFKA_PORT) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ValueError("write host:port,host:port without a scheme or password, ports from 1 to 65535, IPv6 as [::1]:9092")
    return f"{found['host']}:{port}"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def shown(value: Any) -> str:
    """A value for display: secrets masked, empty if unset."""
    if isinstance(value, SecretStr):
        return mask(value.get_secret_value())
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _explain(wrong: Any) -> str:
    """One pydantic error as a sentence: the variable, what is wrong, and the remedy."""
    sentence: str = wrong["msg"].removeprefix("Value error, ")
    if not wrong["loc"]:
        return sentence
    name = str(wrong["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name} is not a setting; see docs/settings.md"
    default = shown(field.default) or "unset"
    return f"{variable(name)}: {sentence}. It means: {field.description} Default: {default}. Correct it or unset it."


def child_environment(**changed: str | int | float | Path) -> dict[str, str]:
    """The environment for a child process: this one's, with these settings changed.

    Variables that importing Feast sets are removed: they would make prometheus_client share metrics between processes in files.
    """
    given = {variable(name): str(value) for name, value in changed.items()}
    left_out = {*SET_BY_FEAST, *(name + FROM_FILE for name in given)}
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **given}
