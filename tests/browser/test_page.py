"""The page in a real, headless Chromium, against a live server, a real store and a real broker."""

import re
from contextlib import closing

import pytest
from kafka import KafkaConsumer
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from features.events import Topic
from stream.pipelines.ingest import Ingest
from tests.browser.page_world import (
    MARKUP,
    complaints,
    now_ms,
    open_page,
    picture,
    press,
    publish_set,
    serving,
    text,
    titles,
    until,
)

pytestmark = pytest.mark.browser


def test_candidates_features_and_reasons_are_seen(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        open_page(browser, url)
        assert titles(browser)[:2] == [MARKUP, "Brown hiking boots"], "the first user offered is shown, markup as text"
        assert browser.find_elements(By.CSS_SELECTOR, "#candidates img, #candidates b") == []
        assert text(browser, "fact-level") == "full"
        until(browser, lambda: text(browser, "state") == "ready")
        until(browser, lambda: "hiking boots" in text(browser, "categories"))
        assert "waterproof boots" in text(browser, "queries")
        assert "Leather ankle boots" in text(browser, "recent"), "titles of items that are no candidates are asked for"

        press(browser, "Why is this a candidate: Brown hiking boots")
        reason = browser.find_elements(By.CSS_SELECTOR, ".reason")[1]
        until(browser, lambda: "lifelong interest in category hiking boots" in reason.text)
        assert "Waterproof trail boots" in reason.text
        assert "“waterproof boots”" in reason.text
        picture(browser, "page")
        assert complaints(browser) == []


def test_a_click_reaches_the_broker_and_the_new_set_is_seen(browser, store, bootstrap):
    with serving(store, bootstrap, topic_prefix="seen.") as url:
        open_page(browser, url)
        press(browser, "Send a click: Two-person tent")
        until(browser, lambda: "Waiting" in text(browser, "news"))
        with closing(KafkaConsumer("seen.clicks", bootstrap_servers=[bootstrap], auto_offset_reset="earliest")) as consumer:
            records = [record for batch in consumer.poll(timeout_ms=10_000).values() for record in batch]
        outcome = Ingest(store, now_ms).process(Topic.CLICKS, records)
        assert outcome.counts["applied"] == 1
        publish_set(store, ["tent-2", "boot-2", "lamp-2", "sock-2", "boot-1", "tent-1"], records[0].timestamp)
        until(browser, lambda: "The set answers your click on Two-person tent" in text(browser, "news"))
        assert "2 of 6 shown are new" in text(browser, "news")
        assert titles(browser)[:3] == ["Ultralight tarp", "Brown hiking boots", "Camping lantern"]
        until(browser, lambda: text(browser, "recent").startswith("click\nTwo-person tent"))
        picture(browser, "changed")
        assert complaints(browser) == []


SHOWN = r"""
const row = [...document.querySelectorAll("#candidates .one")].find(one => one.querySelector(".title").textContent === arguments[0]);
const facts = row.querySelector(".reason").textContent.match(/Rank (\d+) of the set, score ([\d.]+) within its list.*event of (.*)$/) || [];
const [rank, score] = row.querySelectorAll(".line .number");
return [rank.textContent, score.textContent.replace("score ", ""), ...facts.slice(1)];
"""
CHIPS = """
const one = document.querySelector(".chip"), style = getComputedStyle(one), found = [];
for (let hue = 0; hue < 360; hue += 5) {
  one.style.setProperty("--hue", hue);
  found.push([style.color, style.backgroundColor]);
}
return found;
"""


def shown(browser: WebDriver, title: str) -> list[str]:
    """Rank and score in the row of a candidate, then rank, score and event time in its open panel."""
    return browser.execute_script(SHOWN, title)


@pytest.mark.fault("A new candidate set while the page shows the reason for a candidate", "The page reloads the reason")
def test_an_open_reason_follows_the_set_that_it_explains(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        open_page(browser, url)
        press(browser, "Why is this a candidate: Brown hiking boots")
        until(browser, lambda: shown(browser, "Brown hiking boots")[:2] == ["2", "0.909"])
        until(browser, lambda: shown(browser, "Brown hiking boots")[2:4] == ["2", "0.909"])
        before = shown(browser, "Brown hiking boots")[4]

        publish_set(store, ["tent-1", "lamp-1", "sock-1", "boot-2", "boot-1", "tent-2"], now_ms())
        until(browser, lambda: shown(browser, "Brown hiking boots")[:4] == ["4", "0.787", "4", "0.787"])
        assert shown(browser, "Brown hiking boots")[4] != before
        browser.find_element(By.CSS_SELECTOR, "button[aria-label^='Show only category hiking']").click()
        until(browser, lambda: len(titles(browser)) == 2)
        assert shown(browser, "Brown hiking boots")[:4] == ["1", "0.787", "4", "0.787"]
        assert complaints(browser) == []


def test_chips_of_every_colour_can_be_read(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        for scheme in ("light", "dark"):
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            try:
                open_page(browser, url)
                colours = browser.execute_script(CHIPS)
            finally:
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
            assert len({tuple(pair) for pair in colours}) > 60
            assert min(contrast(*pair) for pair in colours) >= 4.5, scheme


def contrast(ink: str, ground: str) -> float:
    """Contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(ink), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


def test_a_token_is_asked_for_kept_for_the_tab_and_sent_with_every_request(browser, store, bootstrap):
    reader, both = "reader-0123456789ab", "both-0123456789abcd"
    with serving(
        store,
        bootstrap,
        topic_prefix="token.",
        api_read_tokens=f"{reader},{both}",
        api_write_tokens=both,
        api_admin_tokens="admin-0123456789ab",
    ) as url:
        browser.get_log("browser")
        browser.get(url)
        until(browser, lambda: "Authorization: Bearer TOKEN" in text(browser, "news"))
        assert titles(browser) == []
        use_token(browser, reader)
        until(browser, lambda: len(titles(browser)) == 6)
        assert not browser.find_element(By.ID, "token").is_displayed()
        browser.refresh()
        until(browser, lambda: len(titles(browser)) == 6)
        assert browser.execute_script("return [location.href, document.cookie].join()").find(reader) == -1
        browser.find_element(By.ID, "text").send_keys("Red <b>shoes</b>\n")
        until(browser, lambda: "EVERLONG_API_WRITE_TOKENS" in text(browser, "news"))
        use_token(browser, both)
        until(browser, lambda: len(titles(browser)) == 6)
        field = browser.find_element(By.ID, "text")
        field.clear()
        field.send_keys("Red <b>shoes</b>\n")
        until(browser, lambda: "Sent: search for “Red <b>shoes</b>”" in text(browser, "news"))
        with closing(KafkaConsumer("token.queries", bootstrap_servers=[bootstrap], auto_offset_reset="earliest")) as consumer:
            [record] = [record for batch in consumer.poll(timeout_ms=10_000).values() for record in batch]
        assert b"Red <b>shoes</b>" in record.value
        browser.execute_script("sessionStorage.clear()")


def use_token(browser: WebDriver, token: str) -> None:
    until(browser, lambda: browser.find_element(By.ID, "token").is_displayed())
    browser.find_element(By.ID, "token").send_keys(f"{token}\n")


@pytest.mark.fault("A page address whose user cannot be decoded", "The page shows the first user in the list")
def test_a_malformed_address_shows_the_first_user(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        open_page(browser, f"{url}/#%E0%A4%A")
        assert browser.find_element(By.ID, "user").get_attribute("value") == "ann"
        assert complaints(browser) == []


def test_a_phone_shows_everything_without_scrolling_sideways(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        try:
            open_page(browser, url)
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            picture(browser, "phone")
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_every_control_has_a_name(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        open_page(browser, url)
        nameless = browser.execute_script(
            "return [...document.querySelectorAll('input, select, button')].filter(one => one.offsetParent"
            " && !one.getAttribute('aria-label') && !(one.labels && one.labels.length) && !one.textContent.trim()).map(one => one.id)"
        )
        assert nameless == []


def test_a_user_picked_by_name_and_a_category_chosen(browser, store, bootstrap):
    with serving(store, bootstrap) as url:
        open_page(browser, url)
        until(browser, lambda: "tents" in text(browser, "categories"))
        browser.find_element(By.CSS_SELECTOR, "button[aria-label^='Show only category tents']").click()
        until(browser, lambda: titles(browser) == ["Two-person tent", "Ultralight tarp"])
        field = browser.find_element(By.ID, "user")
        field.clear()
        field.send_keys("nobody\n")
        until(browser, lambda: "No candidates" in text(browser, "empty"))
        assert titles(browser) == []
