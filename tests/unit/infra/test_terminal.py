"""What is logged: at no level what the Kafka clients say of the password."""

import socket
import subprocess
import sys

import pytest

TALK = """
import logging, sys
from infra.terminal import show_logs
from stream.admin import BrokerUnavailable, wait_for_broker
from stream.connection import Connection
show_logs(sys.argv[2])
logging.getLogger("infra.some").debug("ours")
connection = Connection(
    bootstrap=sys.argv[1], security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="me", sasl_password="hunter2"
)
try:
    wait_for_broker(connection, 0.3)
except BrokerUnavailable:
    print("tried")
senders = "kafka.admin.client", "kafka.net.connection", "kafka.protocol.parser", "aiokafka.conn"
print([name for name in senders if logging.getLogger(name).isEnabledFor(logging.DEBUG)])
"""


@pytest.mark.parametrize(("level", "ours"), [("DEBUG", True), ("INFO", False)])
def test_the_password_is_logged_at_no_level(level: str, ours: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", TALK, place, level]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "tried\n[]\n"
    assert "hunter2" not in done.stderr
    assert ("ours" in done.stderr) == ours
