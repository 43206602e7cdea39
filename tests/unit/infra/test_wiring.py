"""Parts that are opened from settings: what is said while one does not answer."""

import logging
from contextlib import closing

import pytest

from features.errors import StoreUnavailableError
from infra import wiring
from infra.settings import Settings

NOWHERE = "redis://127.0.0.1:1/0?socket_connect_timeout=0.2"


@pytest.mark.fault(
    "A start of `everlong api` or a worker during an outage of the store",
    "It logs at once that it is waiting, and exits with an error after 120 s",
)
def test_waiting_for_a_store_is_said_once_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(StoreUnavailableError, match="check EVERLONG_STORE_URL"):
        wiring.open_online_store(Settings(store_url=NOWHERE), wait_s=2)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("waiting up to 2 s: the online store did not answer: redis://127.0.0.1:1/0")


def test_a_store_that_answers_is_opened_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), closing(wiring.open_online_store(Settings(store_url="memory://"), wait_s=120)):
        assert not caplog.records
