"""Creates connections, stores and devices from settings."""

import logging

from features.errors import StoreUnavailableError
from features.retries import RetryPolicy
from features.store import Key, OnlineStore
from features.store.opening import open_store
from features.table import USER
from infra.errors import MissingSettingError
from infra.settings import Settings
from stream.kafka.admin import wait_for_broker
from stream.kafka.connection import Connection

log = logging.getLogger(__name__)

ASKED_S = 5.0  # how long a command waits for a broker
PROBE = Key(USER.name, ("-",))  # reading any row, existing or not, shows that the store answers


def connection(settings: Settings) -> Connection:
    """The connection to the broker.

    Raises:
        MissingSettingError: no broker is configured.
    """
    if settings.kafka_bootstrap is None:
        raise MissingSettingError("no broker is named", "set EVERLONG_KAFKA_BOOTSTRAP=host:port or start `everlong up`")
    password = settings.kafka_sasl_password
    sasl = settings.kafka_security_protocol.startswith("SASL")
    return Connection(
        bootstrap=settings.kafka_bootstrap,
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism if sasl else None,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=password.get_secret_value() if password else None,
        ssl_cafile=_text(settings.kafka_ssl_cafile),
        ssl_certfile=_text(settings.kafka_ssl_certfile),
        ssl_keyfile=_text(settings.kafka_ssl_keyfile),
    )


def reached(settings: Settings) -> Connection:
    """The connection, once a broker has answered; for commands.

    Raises:
        MissingSettingError: no broker is configured.
        BrokerUnavailableError: none answered within ASKED_S.
        BrokerRefusedError: it refuses the credentials.
    """
    found = connection(settings)
    wait_for_broker(found, ASKED_S)
    return found


def open_online_store(settings: Settings, wait_s: float = 0.0, create: bool = True) -> OnlineStore:
    """The online store, once it answers; the first failed attempt is logged.

    `create`: create a missing SQLite file; not for commands that only read.

    Raises:
        MissingSettingError: no store is configured.
        StoreUnavailableError: it did not answer within `wait_s` seconds.
    """
    if settings.store_url is None:
        raise MissingSettingError("no store is named", "set EVERLONG_STORE_URL=redis://host:port or start `everlong up`")
    url = settings.store_url.get_secret_value()

    def opened() -> OnlineStore:
        store = open_store(url, create=create)
        store.read([PROBE])
        return store

    def tell(error: Exception, tries: int) -> None:
        if tries == 1:
            log.warning("waiting up to %.0f s: %s", wait_s, error)

    policy = RetryPolicy(longest_s=1.0, give_up_after_s=wait_s)
    return policy.retrying(lambda error: isinstance(error, StoreUnavailableError), tell)(opened)


def choose_device(settings: Settings, card: str = "cuda") -> str:
    """`card` if CUDA is requested, or with `auto` if a kernel runs on it; else `cpu`. Also sets the threads of torch, faiss and numpy.

    Raises:
        RuntimeError: CUDA was requested, but no kernel runs.
    """
    import faiss  # these take a second and hundreds of MB, so only workers with models import them
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")  # matrices of a search are small: on a busy machine two BLAS threads only wait for each other
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
        faiss.omp_set_num_threads(settings.torch_threads)
    if settings.device == "cpu":
        return "cpu"
    try:
        torch.ones(8, device=card).sum().item()
        return card
    except (RuntimeError, AssertionError) as error:
        if settings.device == "cuda":
            raise RuntimeError(
                f"EVERLONG_DEVICE=cuda, but no kernel runs on {card} ({error}): install a CUDA build of torch, or unset it"
            ) from error
        return "cpu"


def _text(path: object) -> str | None:
    return None if path is None else str(path)
