"""docker-compose.yml: what `make secrets` writes for it, and the images it pins."""

import re
import stat
import subprocess
from pathlib import Path

from features.store.address import parse
from infra.settings import Settings
from tests.beside import ROOT


def made(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", ROOT / "infra" / "compose" / "make-secrets.sh", folder], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_secrets_are_made_once_and_belong_together(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = made(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    wanted = set(re.findall(r"^  (\w+): \{file: ", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE))
    assert set(first) == wanted
    assert made(folder) == first
    kafka, valkey = first["kafka_password"], first["valkey_password"]
    assert len({kafka, valkey, *(first[f"api_{scope}_tokens"] for scope in ("read", "write", "admin"))}) == 5
    assert kafka in first["kafka_jaas"]
    assert kafka in first["kafka_client"]
    assert first["valkey_config"] == f"requirepass {valkey}\n"
    assert str(parse(first["store_url"].strip())) == "redis://valkey:6379/0"
    Settings(**{name: value for name, value in first.items() if name.startswith("api_")})
    (folder / "kafka_password").unlink()
    second = made(folder)
    assert second["kafka_password"] != kafka
    assert kafka not in "".join(second.values())
    assert second["valkey_password"] == valkey


def test_every_image_is_pinned_by_version_and_digest() -> None:
    compose, dockerfile = ((ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile"))
    pinned = re.findall(r"\$\{[A-Z]+_IMAGE:-([^}]+)\}", compose)
    assert {image.partition(":")[0] for image in pinned} == {"apache/kafka", "valkey/valkey", "prom/prometheus", "python"}
    for image in pinned:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}", image), image
    others = [line.split()[-1] for line in compose.splitlines() if line.strip().startswith("image:") and "_IMAGE:-" not in line]
    assert set(others) == {"everlong:local"}
    (base,) = (image for image in pinned if image.startswith("python:"))
    assert re.findall(r"^ARG PYTHON_IMAGE=(.+)$", dockerfile, re.MULTILINE) == [base]
    assert re.findall(r"^FROM (.+)$", dockerfile, re.MULTILINE) == ["${PYTHON_IMAGE}"]
