"""Identifies the build: the versions of the package, Python and torch, and the commit if the installation records it."""

import json
import platform
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import NamedTuple

PACKAGE = "everlong"


class Build(NamedTuple):
    """Versions as text; empty if unknown."""

    version: str
    commit: str
    python: str
    torch: str


@cache
def build() -> Build:
    """The build of this process. Reads package metadata only."""
    own = _installed(PACKAGE)
    torch = _installed("torch")
    return Build(own.version if own else "", _commit(own), platform.python_version(), torch.version if torch else "")


def _installed(package: str) -> Distribution | None:
    try:
        return distribution(package)
    except PackageNotFoundError:
        return None


def _commit(package: Distribution | None) -> str:
    """The commit of an installation from a repository (PEP 610)."""
    try:
        origin = json.loads((package and package.read_text("direct_url.json")) or "{}")
        return str(origin.get("vcs_info", {}).get("commit_id", ""))
    except (ValueError, AttributeError):
        return ""
