"""The page of benchmarks: a section is replaced alone."""

from pathlib import Path

from bench import parts, table


def test_a_section_replaces_itself_and_leaves_the_others(tmp_path: Path):
    page = tmp_path / "README.md"
    table.write(page, "one", "first \\1")
    table.write(page, "two", "second")
    table.write(page, "one", "third")
    text = page.read_text()
    assert text.startswith(table.HEAD)
    assert "first" not in text
    assert text.count("third") == text.count("second") == 1


def test_a_table_has_a_line_for_each_row():
    lines = table.markdown(("way", "rate"), [("a", "1"), ("b", "2")])
    assert lines == ["| way | rate |", "| --- | ---: |", "| a | 1 |", "| b | 2 |"]


def test_without_a_file_the_simulated_shop_is_measured(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(parts, "SHOP", parts.SHOP._replace(users=5, items=50, categories=4, days=5.0))
    data = parts.load_data(tmp_path / "missing.parquet", 20)
    assert len(data.events) == 20
    assert "simulated shop" in data.name
