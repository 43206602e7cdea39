"""The table of faults in docs/operation.md, made from the marks of the tests that prove each line.

A test carries `@pytest.mark.fault("what comes in", "what happens")`, both literal sentences without a full stop.
`python tests/fault_table.py` writes the table between its two markers in docs/operation.md; tests/test_fault_table.py compares
it with what is committed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operation.md"
BEGIN, END = "<!-- faults: made by tests/fault_table.py -->", "<!-- end of faults -->"


class Fault(NamedTuple):
    """One line: what comes in, what happens, and the test that proves it (file and name)."""

    comes_in: str
    happens: str
    file: str
    test: str


def faults(folder: Path = ROOT / "tests") -> list[Fault]:
    """The marks of all tests in a folder, by file and then in the order of the file."""
    return [fault for path in sorted(folder.rglob("test_*.py")) for fault in _marks(path)]


def table(found: list[Fault]) -> str:
    """The lines as a Markdown table."""
    rows = [f"| {_capital(f.comes_in)} | {_capital(f.happens)} | [{f.test}](../{f.file}) |" for f in found]
    return "\n".join(["| What comes in | What happens | Proved by |", "|---|---|---|", *rows])


def page(text: str, found: list[Fault]) -> str:
    """The page with the table between its markers.

    Raises:
        ValueError: the page lacks a marker.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n{table(found)}\n{end}{after}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:] if sentence[:1].isascii() else sentence


def _marks(path: Path) -> Iterator[Fault]:
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    comes_in, happens = (ast.literal_eval(argument) for argument in mark.args)
                    yield Fault(comes_in, happens, name, node.name)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), faults()), encoding="utf-8")
