"""A headless Chromium, a real broker, and a store in which Ann has searched and clicked for months."""

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from features.events import Click, Query
from features.history import offline_rows
from features.outcomes import ItemRow
from features.store import OnlineStore
from features.store.memory import MemoryStore
from infra.local import embedded
from infra.local.processes import Supervisor
from tests.browser.page_world import FLAGS, TITLES, category, missing, now_ms, publish_set, put


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[WebDriver]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("no Chromium" if binary is None else "no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("broker")
    with Supervisor(folder / "logs", 5) as supervisor:
        yield embedded.start_broker(supervisor, folder).bootstrap


@pytest.fixture
def store() -> OnlineStore:
    """Ann has searched and clicked for boots and tents for months."""
    store, now = MemoryStore(), now_ms()
    events: list[Click | Query] = [Query(event_id="q", user_id="ann", query_id="q", text="Waterproof Boots", ts=now - 500_000)]
    for n, item in enumerate(["boot-4", "boot-3", "tent-1", "boot-2", "lamp-1", "boot-3", "sock-1", "tent-2", "boot-4"]):
        kind = "cart" if n == 3 else "click"
        ts = now - 100_000 - n * n * 40_000_000
        events.append(Click(event_id=f"c{n}", user_id="ann", item_id=item, category_id=category(item), ts=ts, kind=kind))
    users, categories = offline_rows(events)
    put(store, "user", "ann", users["ann"])
    for key, row in categories.items():
        put(store, "user_category", key, row)
    for item, title in TITLES.items():
        put(store, "item", item, ItemRow(category=category(item), title=title, generation="g-7f3a", ts=now))
    publish_set(store, ["boot-1", "boot-2", "tent-1", "lamp-1", "sock-1", "tent-2"], now - 100_000)
    return store
