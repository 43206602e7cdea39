"""The checkout, and what may lie beside it but never ships: real data sets, a broker, a container engine."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def lacking(what: str, reason: str) -> NoReturn:
    """Skip for a reason that says what would lift it; fail where REQUIRE_<what>=1, as in CI, which has everything."""
    if os.environ.get(f"REQUIRE_{what}") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def data_file(name: str) -> Path:
    """A file of the real data sets."""
    if not (path := SHARED / "data" / name).exists():
        lacking("SHARED", f"{path} is not there: put the data sets beside the checkout")
    return path
