"""A broker with TLS, users and an authorizer: its certificates, its settings, and how a client of each kind reaches it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stream.kafka.connection import Connection

USERS = ("ingest", "catalogue", "refresh", "api", "operator", "nobody")
PASSWORD = "right-CANARY"


class Secured(NamedTuple):
    """`admin` has all rights; `ports` by protocol; `authority` signs, `client` is a certificate and its key in one file."""

    admin: Connection
    ports: Mapping[str, int]
    authority: Path
    client: Path

    def connection(self, protocol: str, *, host: str = "localhost", port_of: str | None = None, **fields: Any) -> Connection:
        """As user `ingest` with the right password and certificates, but for what `fields` changes; `port_of`: another listener."""
        port = int(self.admin.bootstrap.rpartition(":")[2]) if port_of == "PLAINTEXT" else self.ports[port_of or protocol]
        chosen: dict[str, Any] = {"bootstrap": f"{host}:{port}", "security_protocol": protocol}
        if "SSL" in protocol.split("_"):
            chosen["ssl_cafile"] = str(self.authority)
        if protocol == "SSL":
            chosen |= {"ssl_certfile": str(self.client), "ssl_keyfile": str(self.client)}
        if protocol.startswith("SASL"):
            chosen |= {"sasl_mechanism": "PLAIN", "sasl_username": "ingest", "sasl_password": PASSWORD}
        return Connection(**chosen | fields)


def certificates(folder: Path) -> tuple[Path, Path]:
    """An authority, and files that hold a certificate and key each: for the broker (host name localhost) and for a client."""

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2)
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem")
    for name, host in (("broker", "localhost"), ("client", "client")):
        signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-addext", f"subjectAltName=DNS:{host}")
        openssl("req", "-x509", *key, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
        (folder / f"{name}.pem").write_bytes((folder / f"{name}.key").read_bytes() + (folder / f"{name}.crt").read_bytes())
    return folder / "authority.pem", folder / "client.pem"


def security(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """The broker's settings, `key=value`; {port} and {controller} stand for those of the broker without security."""
    listeners = "PLAINTEXT://127.0.0.1:{port}," + ",".join(f"{protocol}://localhost:{port}" for protocol, port in ports.items())
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in USERS)
    module = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
    return [
        "listeners=" + listeners + ",CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners=" + listeners,
        "sasl.enabled.mechanisms=PLAIN",
        f"listener.name.sasl_plaintext.plain.sasl.jaas.config={module}",
        f"listener.name.sasl_ssl.plain.sasl.jaas.config={module}",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={folder / 'broker.pem'}",
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={folder / 'authority.pem'}",
        "listener.name.ssl.ssl.client.auth=required",
    ]
