"""The table of faults in docs/operation.md says what the tests prove, in the words of their marks."""

import pytest

from tests.fault_table import PAGE, Fault, faults, page, table


def test_the_page_holds_the_table_of_the_marks() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, faults()) == text, "run `make docs`"


def test_every_line_reads_as_one_cell() -> None:
    bad = [fault for fault in faults() if any("|" in part or "\n" in part or part.endswith(".") for part in fault[:2])]
    assert not bad


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        page("# Operation\n", [])


def test_a_mark_is_a_row() -> None:
    assert "| A case | Its end | [test_c](../tests/test_d.py) |" in table([Fault("a case", "its end", "tests/test_d.py", "test_c")])
    assert "| ß | `x` |" in table([Fault("ß", "`x`", "tests/test_d.py", "test_c")])
