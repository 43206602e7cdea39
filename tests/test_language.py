"""Words that no page and no user-facing text needs: archaic, or invented here. The glossary has the terms to use."""

import re
from pathlib import Path

import pytest

from tests.beside import ROOT

AVOIDED = {
    r"foret(?:old|ell)\w*": "predict",
    r"anew": "again, or re-",
    r"whoever": "name the actor",
    r"of late": "recent",
    r"g(?:o|oes|oing|one) on from": "resume, or continue",
    r"of before": "previous",
    r"in the place of": "instead of",
    r"hands? back": "requeue, or return",
    r"time-out": "timeout",
    r"(?<!there )is no event": "invalid",
    r"none of ours": "unknown",
    r"cannot be had": "out of stock",
    r"tells? of": "say, or name what is known",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(AVOIDED)})\b", re.I)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
CODE = ("features", "models", "stream", "infra", "research", "bench")
TEXTS = [path for folder in CODE for kind in ("*.py", "*.yml", "*.html") for path in (ROOT / folder).rglob(kind)]


@pytest.mark.parametrize("path", [*PAGES, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_avoided_word(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), start=1)
    assert [f"line {number}: {found[0]}" for number, line in lines if (found := PATTERN.search(line))] == []
