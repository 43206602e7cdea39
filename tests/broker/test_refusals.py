"""A broker that does not let us in says why at once, in one sentence, to every command; no password is in it."""

import pytest
from typer.testing import CliRunner

from features import sources
from features.events import Click
from infra.cli import make_app
from infra.clock import wall_ms
from stream.errors import BrokerRefusedError
from stream.kafka.admin import create_topics, wait_for_broker
from tests.broker.security import PASSWORD

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

NEVER_S = 600.0  # longer than the test may take: a refusal that is tried again fails it
WRONG = {
    "a wrong password": (
        "SASL_PLAINTEXT",
        {"sasl_password": "wrong-CANARY"},
        r"refused user ingest \(PLAIN\).*EVERLONG_KAFKA_SASL_PASSWORD",
    ),
    "a mechanism that is off": ("SASL_SSL", {"sasl_mechanism": "SCRAM-SHA-256"}, "does not offer the mechanism SCRAM-SHA-256"),
    "no user": ("PLAINTEXT", {"port_of": "SASL_PLAINTEXT"}, "asks for a user name.*SASL_PLAINTEXT"),
    "no user over TLS": ("SSL", {"port_of": "SASL_SSL"}, "asks for a user name.*SASL_SSL"),
    "a user too many": ("SASL_PLAINTEXT", {"port_of": "PLAINTEXT"}, "asks for no user name.* PLAINTEXT"),
    "plaintext to TLS": ("PLAINTEXT", {"port_of": "SSL"}, "speaks TLS"),
    "a user in plaintext to TLS": ("SASL_PLAINTEXT", {"port_of": "SASL_SSL"}, "speaks TLS"),
    "TLS to plaintext": ("SSL", {"port_of": "PLAINTEXT", "host": "127.0.0.1"}, "does not speak TLS"),
    "another authority": ("SASL_SSL", {"ssl_cafile": None}, "is not trusted.*EVERLONG_KAFKA_SSL_CAFILE"),
    "another host name": ("SASL_SSL", {"host": "127.0.0.1"}, "another host name than 127.0.0.1"),
    "no certificate of ours": ("SSL", {"ssl_certfile": None, "ssl_keyfile": None}, "EVERLONG_KAFKA_SSL_CERTFILE"),
    "no file": ("SASL_SSL", {"ssl_cafile": "/no/such.pem"}, "EVERLONG_KAFKA_SSL_CAFILE=/no/such.pem holds no certificates: No such file"),
    "a key without its certificate": ("SSL", {"ssl_keyfile": "/no/such.key"}, "EVERLONG_KAFKA_SSL_KEYFILE=/no/such.key are no certificate"),
}


def test_what_is_right_is_let_in(secured):
    for protocol in secured.ports:
        wait_for_broker(secured.connection(protocol), NEVER_S)


@pytest.mark.fault(
    "A wrong Kafka user, password, certificate or security protocol",
    "Every command exits at once with an error that names the cause",
)
@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_named_at_once(secured, fault):
    protocol, fields, said = WRONG[fault]
    with pytest.raises(BrokerRefusedError, match=said) as refused:
        wait_for_broker(secured.connection(protocol, **fields), NEVER_S)
    assert "CANARY" not in str(refused.value)


@pytest.fixture
def run(secured, tmp_path, monkeypatch):
    """The error that a command ends with, as a given user."""
    events = tmp_path / "events.jsonl"
    sources.write(events, [Click(event_id="e", user_id="u", item_id="i", category_id="c", ts=wall_ms())])

    def ended(user, password, *words):
        monkeypatch.setenv("EVERLONG_DATA_DIR", str(tmp_path))
        monkeypatch.setenv("EVERLONG_STORE_URL", f"sqlite:///{tmp_path}/rows.db")
        monkeypatch.setenv("EVERLONG_KAFKA_BOOTSTRAP", f"localhost:{secured.ports['SASL_PLAINTEXT']}")
        monkeypatch.setenv("EVERLONG_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        monkeypatch.setenv("EVERLONG_KAFKA_SASL_MECHANISM", "PLAIN")
        monkeypatch.setenv("EVERLONG_KAFKA_SASL_USERNAME", user)
        monkeypatch.setenv("EVERLONG_KAFKA_SASL_PASSWORD", password)
        done = CliRunner().invoke(make_app(), [word.replace("FILE", str(events)) for word in words])
        assert isinstance(done.exception, BrokerRefusedError), (words, done.output, done.exception)
        assert "CANARY" not in done.output + str(done.exception)
        return str(done.exception)

    return ended


COMMANDS = (["topics"], ["dlq", "list"], ["codes", "status"], ["shop"], ["replay", "FILE"], ["api"])


def test_every_command_names_a_wrong_password(run):
    for words in COMMANDS:
        assert "refused user ingest" in run("ingest", "wrong-CANARY", *words)


@pytest.mark.fault(
    "A Kafka user without rights to a topic",
    "Commands report the topic and the missing right, and `everlong dlq list` does not report an empty topic",
)
def test_a_user_without_rights_is_told_which(secured, run):
    create_topics(secured.admin, "", partitions=1, replication=1)
    for words in (["topics"], ["dlq", "list"], ["dlq", "show", "0:0"], ["codes", "status"]):
        assert "user nobody is not allowed to" in run("nobody", PASSWORD, *words)
