"""What the tests of the page share: a shop, a served API, and ways to look at a page and to use it."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep, time_ns
from typing import NoReturn

import uvicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from features.codec import pack
from features.outcomes import Candidate, CandidatesRow
from features.store import Key, LogPosition, OnlineStore, Stored
from infra.health import Health
from infra.http.api import make_api
from infra.metrics import ApiMetrics
from infra.settings import Settings
from stream.kafka.connection import Connection
from stream.kafka.producer import Outbound
from tests.beside import lacking

MARKUP = '<img src=x onerror="document.title=1"><b>Bold</b> boots'
TITLES = {
    "boot-1": MARKUP, "boot-2": "Brown hiking boots", "boot-3": "Waterproof trail boots", "boot-4": "Leather ankle boots",
    "tent-1": "Two-person tent", "tent-2": "Ultralight tarp", "lamp-1": "Headlamp, 400 lumen", "lamp-2": "Camping lantern",
    "sock-1": "Merino socks", "sock-2": "Trekking socks",
}  # fmt: skip
CATEGORIES = {"boot": "hiking boots", "tent": "tents", "lamp": "lighting", "sock": "socks"}
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def missing(what: str) -> NoReturn:
    """Skip, saying how to lift it; where a browser is required, fail."""
    lacking("BROWSER", f"{what}: install chromium and chromium-driver (apt-get install chromium chromium-driver)")


def now_ms() -> int:
    return time_ns() // 1_000_000


def category(item: str) -> str:
    return CATEGORIES[item.partition("-")[0]]


def put(store: OnlineStore, view: str, key: str | tuple[str, ...], row) -> None:
    entities = (key,) if isinstance(key, str) else key
    assert store.write([(Key(view, entities), Stored(pack(row), LogPosition(), 0))]) == [True]


def publish_set(store: OnlineStore, items: list[str], event_ts: int) -> None:
    found = [
        Candidate(item, round(0.97 - 0.061 * n, 3), category(item), ("category", "category", "short", "category_popular")[n % 4])
        for n, item in enumerate(items)
    ]
    put(store, "user_candidates", "ann", CandidatesRow(candidates=found, generation="g-7f3a", event_ts=event_ts, published_ts=now_ms()))


@contextmanager
def serving(store: OnlineStore, bootstrap: str, **settings) -> Iterator[str]:
    """The address of a live server."""
    outbound = Outbound(Connection(bootstrap=bootstrap))

    @asynccontextmanager
    async def lifespan(_):
        yield
        await outbound.stop()

    app = make_api(store, outbound, ApiMetrics(), Health(), Settings(**settings), users=lambda: ["ann", "bob"], lifespan=lifespan)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = monotonic() + 60
        while not server.started:
            assert monotonic() < deadline
            sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(15)


def until(browser: WebDriver, found: Callable[[], object]) -> None:
    WebDriverWait(browser, 60, 0.05).until(lambda _: found())


def titles(browser: WebDriver) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('#candidates .title')].map(one => one.textContent)")


def text(browser: WebDriver, id_: str) -> str:
    return browser.find_element(By.ID, id_).text


def press(browser: WebDriver, label: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"button[aria-label={label!r}]").click()


def open_page(browser: WebDriver, url: str, count: int = 6) -> None:
    browser.get_log("browser")
    browser.get(url)
    until(browser, lambda: len(titles(browser)) == count)


def complaints(browser: WebDriver) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]


def picture(browser: WebDriver, name: str) -> None:
    """Keep a screenshot where EVERLONG_TEST_PICTURES says."""
    if folder := os.environ.get("EVERLONG_TEST_PICTURES"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))
