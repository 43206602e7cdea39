"""The walks of docs/architecture.md: at most ten hops each, and every hop is a function or method of the tree."""

import re
from importlib import import_module

import pytest

from tests.beside import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = dict(re.findall(r"^## The path of one (\w+)\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL))
NAME = re.compile(r"`((?:features|models|stream|infra|research)(?:\.\w+)+)`")
MOST_HOPS = 10


def hops(walk: str) -> list[str]:
    """The numbered items of a walk, each with the lines that continue it."""
    return re.findall(r"^\d+\. (.*(?:\n   .*)*)", WALKS[walk], flags=re.MULTILINE)


def resolve(name: str) -> object:
    """The object of a dotted name: the longest module of it, then attributes."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_the_page_walks_an_event_a_refresh_an_item_and_a_training() -> None:
    assert list(WALKS) == ["event", "refresh", "item", "training"]


@pytest.mark.parametrize("walk", ["event", "refresh", "item", "training"])
def test_a_walk_has_few_hops_and_each_exists(walk: str) -> None:
    found = hops(walk)
    assert 0 < len(found) <= MOST_HOPS
    for hop in found:
        names = NAME.findall(hop)
        assert names, f"no function is named: {hop}"
        for name in names:
            assert callable(resolve(name)), name


def test_every_name_of_the_page_exists() -> None:
    for name in NAME.findall(PAGE):
        resolve(name)
