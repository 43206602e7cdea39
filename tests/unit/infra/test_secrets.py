"""Secrets: read from files, and shown nowhere, whatever they look like."""

import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from typer.testing import CliRunner

from features.errors import StoreUnavailableError
from features.feast.definitions import repo_config
from features.store import Key
from features.store.opening import open_store
from infra.cli import make_app
from infra.errors import SettingsError
from infra.settings import PREFIX, Settings, child_environment, describe, load_settings, unknown_variables

CANARY = "CANARY"
TOKEN = f"{CANARY}-0123456789abcdef"
PASSWORDS = st.lists(
    st.sampled_from([CANARY, "/", "#", "?", "@", ":", "%", "[", "]", "1", "42", "=", "&", " ", "\n", "\t", "é", "\uff0f"]), max_size=8
).map("".join)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.mark.fault(
    "A store URL whose password contains / # ? @ : or %, quoted or not, with any other mistake in the URL",
    "No message, log line, health response or `everlong settings` shows any part of the password",
)
@bounds(deadline=None)
@given(
    before=PASSWORDS,
    after=PASSWORDS,
    user=st.sampled_from(["", "me", CANARY, "me:"]),
    scheme=st.sampled_from(["redis", "rediss", "redis+cluster", "rediss+cluster", "http", "redi", "sqlite"]),
    end=st.sampled_from(["", ":6379", ":6379/0", ":1/x", ":99999", "/0?socket_timeout=no", "?unknown=1", "/0?db=0#x"]),
    quoted=st.booleans(),
)
def test_no_part_of_a_password_is_ever_shown(before, after, user, scheme, end, quoted):
    password = before + CANARY + after
    url = f"{scheme}://{user}:{quote(password, safe='') if quoted else password}@127.0.0.1{end}"
    said: list[str] = []
    try:
        settings = load_settings(store_url=url)
        said += [describe(settings), repr(settings), str(settings.model_dump())]
    except SettingsError as error:
        said.append(str(error))
    if scheme.startswith("redis"):
        for use in (lambda: repr(open_store(url.replace("+cluster", ""))), lambda: repo_config(url, "registry.db") and ""):
            try:
                said.append(use())
            except ValueError as error:
                said.append(str(error))
    assert CANARY not in "".join(said)


def test_an_error_of_the_store_shows_its_address_only():
    store = open_store(f"redis://me:{CANARY}@127.0.0.1:1/0?socket_connect_timeout=0.5")
    with pytest.raises(StoreUnavailableError) as caught:
        store.read([Key("user", ("ann",))])
    assert "redis://127.0.0.1:1/0" in str(caught.value)
    assert CANARY not in f"{caught.value!r} {store!r}"


@pytest.mark.fault("An unknown option after the ? of a store URL", "The command fails at startup with an error that names the option")
@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://h:1/0?colour=red", "does not know (colour)"),
        ("redis+cluster://h:1/0?colour=red", "does not know (colour)"),
        ("rediss://h:1/0?ssl_ca_certs=/no/such.pem", "ssl_ca_certs=/no/such.pem"),
        ("redis://h:1/0?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_an_unknown_option_is_named(url, remedy):
    with pytest.raises(ValueError, match=r"store URL|connection URL") as caught:
        open_store(url)
    assert remedy in str(caught.value)


SECRETS = {
    "EVERLONG_KAFKA_SASL_PASSWORD": f"{CANARY} with spaces",
    "EVERLONG_STORE_URL": f"redis://:{CANARY}@h:1/0",
    "EVERLONG_API_READ_TOKENS": f"{TOKEN},{TOKEN}2",
    "EVERLONG_API_WRITE_TOKENS": TOKEN,
    "EVERLONG_API_ADMIN_TOKENS": TOKEN,
}


def test_every_secret_can_be_in_a_file(tmp_path, monkeypatch):
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret + "\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = load_settings()
    for name, secret in SECRETS.items():
        value = getattr(settings, name.removeprefix(PREFIX).lower())
        shown = ",".join(one.get_secret_value() for one in value) if isinstance(value, tuple) else value.get_secret_value()
        assert shown == secret
    assert CANARY not in describe(settings) + repr(settings)
    assert unknown_variables({f"{name}_FILE": "x" for name in SECRETS}) == []
    found = CliRunner().invoke(make_app(), ["settings", "--json"])
    assert CANARY not in found.output
    assert json.loads(found.stdout)["EVERLONG_API_READ_TOKENS"] == "**********,**********"


@pytest.mark.fault(
    "A secret file that is missing, empty or not text, or a secret that is set twice", "The error names the variable and the file"
)
@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_file_that_cannot_be_used_is_named(tmp_path, monkeypatch, name):
    path = tmp_path / "secret"
    monkeypatch.setenv(f"{name}_FILE", str(path))
    for make, remedy in (
        (lambda: None, "cannot be read"),
        (lambda: path.write_text("\n"), "is empty"),
        (lambda: path.write_bytes(b"\xff\xfe"), "is not UTF-8"),
        (lambda: path.write_text(SECRETS[name]) and monkeypatch.setenv(name, SECRETS[name]), "both set"),
    ):
        make()
        with pytest.raises(SettingsError, match=remedy) as caught:
            load_settings()
        assert f"{name}_FILE" in str(caught.value)
        assert CANARY not in str(caught.value)


def test_a_child_gets_a_secret_once(tmp_path, monkeypatch):
    (tmp_path / "url").write_text("redis://h:1/0")
    monkeypatch.setenv("EVERLONG_STORE_URL_FILE", str(tmp_path / "url"))
    given = child_environment(store_url="redis://127.0.0.1:2/0")
    assert "EVERLONG_STORE_URL_FILE" not in given
    assert given["EVERLONG_STORE_URL"] == "redis://127.0.0.1:2/0"
    assert child_environment()["EVERLONG_STORE_URL_FILE"] == str(tmp_path / "url")


def test_the_single_token_of_before_is_refused_with_the_remedy(monkeypatch, caplog):
    monkeypatch.setenv("EVERLONG_API_TOKEN", TOKEN)
    with caplog.at_level(logging.WARNING), pytest.raises(SettingsError, match="EVERLONG_API_READ_TOKENS") as caught:
        load_settings()
    assert CANARY not in str(caught.value) + caplog.text


def test_tokens_and_anonymous_access_exclude_each_other():
    with pytest.raises(ValueError, match="EVERLONG_API_ALLOW_ANONYMOUS") as caught:
        Settings(api_allow_anonymous=True, api_read_tokens=TOKEN)
    assert CANARY not in str(caught.value)
