"""What is logged: at no level the password, and of libraries what an operator can act on."""

import socket
import subprocess
import sys

import pytest

TALK = """
import logging, sys
from infra.terminal import show_logs
from stream.kafka.admin import BrokerUnavailableError, wait_for_broker
from stream.kafka.connection import Connection
show_logs(sys.argv[2])
logging.getLogger("infra.some").debug("ours")
connection = Connection(
    bootstrap=sys.argv[1], security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="me", sasl_password="hunter2"
)
try:
    wait_for_broker(connection, 0.3)
except BrokerUnavailableError:
    print("tried")
senders = "kafka.admin.client", "kafka.net.connection", "kafka.protocol.parser", "aiokafka.conn"
print([name for name in senders if logging.getLogger(name).isEnabledFor(logging.DEBUG)])
logging.getLogger("kafka.net.selector").warning("Task %r ran for %.3fs. It is blocking the event loop -- likely a tight sync loop", 1, 0.2)
logging.getLogger("kafka.net.selector").warning("another warning")
logging.getLogger("faiss.loader").info("Could not load library with AVX512 support")
"""


@pytest.mark.parametrize(("level", "ours"), [("DEBUG", True), ("INFO", False)])
def test_neither_the_password_nor_noise_is_logged(level: str, ours: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-c", TALK, place, level]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "tried\n[]\n"
    assert "hunter2" not in done.stderr
    assert ("ours" in done.stderr) == ours
    assert "another warning" in done.stderr
    assert "blocking the event loop" not in done.stderr
    assert ("AVX512" in done.stderr) == ours
