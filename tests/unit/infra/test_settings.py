"""Settings: from the environment only, frozen, explained when wrong, never showing a secret."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from features.store.address import SCHEMES
from infra.errors import SettingsError
from infra.masking import STORE_SCHEMES
from infra.settings import PREFIX, Settings, describe, load_settings, unknown_variables
from infra.settings_page import settings_page
from tests.beside import ROOT

PAGE = ROOT / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


def test_defaults_are_a_machine_of_its_own():
    settings = load_settings()
    assert settings.kafka_bootstrap is None
    assert settings.store_url is None
    assert settings.http_host == "127.0.0.1"
    assert settings.bundle_path == Path(".everlong/bundle")
    assert settings.time_rules.max_future_ms == settings.max_future_ms


def test_values_come_from_the_environment_and_options_win(monkeypatch):
    monkeypatch.setenv("EVERLONG_KAFKA_BOOTSTRAP", "kafka-1:9092,kafka-2:9092")
    monkeypatch.setenv("EVERLONG_PARTITIONS", "12")
    monkeypatch.setenv("EVERLONG_CANDIDATES", "")
    monkeypatch.setenv("EVERLONG_API_CORS_ORIGINS", "https://a.example, https://b.example")
    settings = load_settings(partitions=6, device=None)
    assert settings.kafka_bootstrap == "kafka-1:9092,kafka-2:9092"
    assert (settings.partitions, settings.candidates, settings.device) == (6, 200, "auto")
    assert settings.api_cors_origins == ("https://a.example", "https://b.example")


def test_frozen():
    with pytest.raises(ValidationError):
        load_settings().partitions = 3


def test_every_setting_says_what_it_means():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("EVERLONG_PARTITIONS", "0", "greater than or equal to 1"),
        ("EVERLONG_HTTP_PORT", "70000", "65535"),
        ("EVERLONG_DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("EVERLONG_STORE_URL", "mysql://root:hunter22@db", "redis://host:port"),
        ("EVERLONG_STORE_URL", "redis://", "redis://host:port"),
        ("EVERLONG_TOPIC_PREFIX", "a b", "pattern"),
        ("EVERLONG_KAFKA_SECURITY_PROTOCOL", "SASL_SSL", "EVERLONG_KAFKA_SASL_PASSWORD"),
        ("EVERLONG_KAFKA_SECURITY_PROTOCOL", "SSL", "EVERLONG_KAFKA_BOOTSTRAP"),
        ("EVERLONG_HEARTBEAT_S", "5", "EVERLONG_SESSION_TIMEOUT_S"),
        ("EVERLONG_STORE_URL", "redis://shop:hun/ter2@valkey", "%2F"),
        ("EVERLONG_STORE_URL", "redis://shop:123/hunter2@valkey", "%2F"),
        ("EVERLONG_API_TOKEN", "hunter2hunter2hunter2", "EVERLONG_API_READ_TOKENS"),
        ("EVERLONG_API_READ_TOKENS", "hunter", "16"),
        ("EVERLONG_API_WRITE_TOKENS", "hunter2hunter2hunter2,hunter", "16"),
        ("EVERLONG_API_ADMIN_TOKENS", "hunter2 hunter2 hunter2", "A-Z"),
    ],
)
def test_a_bad_value_names_its_variable_and_the_remedy(monkeypatch, variable, value, remedy):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert variable in str(caught.value)
    assert remedy in str(caught.value)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "brokers"),
    [
        ("kafka", "kafka:9092"),
        ("kafka:9092,broker2", "kafka:9092,broker2:9092"),
        (" my_kafka-1.shop:1 , 10.0.0.1:65535 ", "my_kafka-1.shop:1,10.0.0.1:65535"),
        ("[::1]", "[::1]:9092"),
        ("[fe80::1%eth0]:9093,[2001:db8::2]", "[fe80::1%eth0]:9093,[2001:db8::2]:9092"),
    ],
)
def test_brokers_without_a_port_get_kafkas(told, brokers):
    assert load_settings(kafka_bootstrap=told).kafka_bootstrap == brokers


@pytest.mark.parametrize(
    "told",
    [
        *("kafka:", "kafka:port", "kafka:0", "kafka:65536", "kafka:-1", "kafka:\u0663", ":9092", "kafka;broker2", "kafka kafka"),
        *("::1", "::1:9092", "[::1", "[]", "[kafka]", ",", "kafka,", ",kafka", "kafka://kafka:9092", "me:hunter2@kafka:9092"),
    ],
)
def test_what_is_no_broker_is_said_with_the_form(monkeypatch, told):
    monkeypatch.setenv("EVERLONG_KAFKA_BOOTSTRAP", told)
    with pytest.raises(SettingsError, match=r"EVERLONG_KAFKA_BOOTSTRAP: write host:port,host:port .*\[::1\]:9092") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_all_bad_values_are_told_at_once(monkeypatch):
    monkeypatch.setenv("EVERLONG_PARTITIONS", "many")
    monkeypatch.setenv("EVERLONG_EPOCH", "-1")
    with pytest.raises(SettingsError, match=r"(?s)EVERLONG_PARTITIONS.*\n.*EVERLONG_EPOCH"):
        load_settings()


def test_an_option_that_is_no_setting_is_refused():
    with pytest.raises(SettingsError, match="colour is not a setting"):
        load_settings(colour="red")


def test_unknown_variables_name_the_nearest(caplog, monkeypatch):
    environment = {"EVERLONG_KAFKA_BOOTSRAP": "x", "EVERLONG_TEST_KAFKA": "x", "EVERLONG_DEVICE": "cpu", "PATH": "/", "EVERLONG_QQQQ": "1"}
    sentences = unknown_variables(environment)
    assert [sentence.split()[0] for sentence in sentences] == ["EVERLONG_KAFKA_BOOTSRAP", "EVERLONG_QQQQ"]
    assert "did you mean EVERLONG_KAFKA_BOOTSTRAP?" in sentences[0]
    monkeypatch.setenv("EVERLONG_STOR_URL", "redis://h:1")
    with caplog.at_level(logging.WARNING, "everlong.settings"):
        load_settings()
    assert "did you mean EVERLONG_STORE_URL?" in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://shop:hunter2@valkey:6379/0", "redis://**********@valkey:6379/0"),
        ("redis://:hunter2@valkey:6379", "redis://**********@valkey:6379"),
        ("rediss://hunter2@valkey", "rediss://**********@valkey:6379"),
        ("redis://valkey:6379/1?password=hunter2", "redis://valkey:6379/1?**********"),
        ("redis://shop:hun@ter2@valkey", "redis://**********@valkey:6379"),
        ("redis://shop:hun%2Fter2@[::1]:1/2?socket_timeout=3", "redis://**********@[::1]:1/2?**********"),
        ("sqlite:///data/online.db", "sqlite:///data/online.db"),
    ],
)
def test_a_description_shows_the_store_but_no_password(url, shown):
    settings = load_settings(store_url=url)
    assert f"EVERLONG_STORE_URL={shown}\n" in describe(settings)
    assert "ter2" not in describe(settings) + repr(settings) + str(settings)


def test_settings_take_every_store_there_is():
    assert {*SCHEMES, "sqlite", "memory"} == set(STORE_SCHEMES)
    assert load_settings(store_url="memory://").store_url is not None


def test_a_description_masks_every_secret():
    settings = load_settings(
        kafka_bootstrap="k:9092", kafka_security_protocol="SASL_SSL", kafka_sasl_username="shop",
        kafka_sasl_password="hunter2", api_read_tokens="hunter2hunter2hunter2",
    )  # fmt: skip
    assert "hunter2" not in describe(settings) + repr(settings)
    assert "EVERLONG_KAFKA_SASL_USERNAME=shop\n" in describe(settings)
    assert len(describe(settings).splitlines()) == len(Settings.model_fields)


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == settings_page(), "docs/settings.md is behind infra.settings: write settings_page() to it (make docs)"
