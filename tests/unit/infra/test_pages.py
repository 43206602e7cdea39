"""The generated pages that are committed are those that the code makes now: `make docs`."""

from pathlib import Path

import pytest

from features.events import TYPES
from features.table import VIEWS
from infra.pages import PAGES, write_pages
from tests.beside import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run: make docs"


def test_every_feature_is_described() -> None:
    page = (DOCS / "features.md").read_text()
    assert all(f"| `{field.name}` |" in page for view in VIEWS for field in view.fields)


def test_every_field_of_an_event_is_described() -> None:
    page = (DOCS / "events.md").read_text()
    missing = [(topic, name) for topic, kind in TYPES.items() for name in kind.__struct_fields__ if f"`{name}`" not in page]
    assert not missing


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    assert {path.name for path in write_pages(tmp_path)} == set(PAGES)
    assert write_pages(tmp_path) == []
