"""The generated pages of the manual. `python -m infra.pages docs` writes them; a test compares them with the committed ones."""

import sys
from collections.abc import Callable
from pathlib import Path

from features.pages import features_page
from features.sources.page import columns_page
from infra.access import access_page
from infra.settings_page import settings_page

PAGES: dict[str, Callable[[], str]] = {
    "access.md": access_page,
    "columns.md": columns_page,
    "features.md": features_page,
    "settings.md": settings_page,
}


def write_pages(folder: Path) -> list[Path]:
    """Write every generated page into a folder; returns the paths of the changed ones."""
    changed = []
    for name, make in PAGES.items():
        path, text = folder / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write_pages(Path(sys.argv[1])):
        print(path)
