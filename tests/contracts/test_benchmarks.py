"""The benchmarks that run the whole system, at tiny size on the embedded broker and store: they end, and their tables have rows."""

import argparse
from pathlib import Path

import pytest

from bench import ingest, latency, memory, parts
from models.config import Config

TINY = parts.SHOP._replace(users=12, items=80, categories=4, days=5.0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SHOP", TINY)
    monkeypatch.setattr(latency, "SHOP", TINY)
    monkeypatch.setattr(latency, "RATES", (20,))
    monkeypatch.setattr(latency, "CONFIG", Config().replace(epochs=1, per_user=2, dim=16, heads=2))


def rows_of(section: str) -> list[list[str]]:
    """The cells of a section's table rows, heads and rules left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row[0].startswith("---")][1:]


def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        data=tmp_path / "missing.parquet", events=200, repeat=1, plain_events=50, kafka=None, seconds=3.0, items=0, update_seconds=0.0
    )


@pytest.mark.timeout(300)
def test_latency_is_measured_from_live_events(tmp_path: Path) -> None:
    [row] = rows_of(latency.measure(options(tmp_path), tmp_path))
    rate, _, events, p50, p99, sets, unanswered, levels, _ = row
    assert rate == "20"
    assert 0 < int(p50) <= int(p99)
    assert int(events) > 0
    assert int(sets) > 0
    assert unanswered == "0"
    assert "full" in levels


@pytest.mark.timeout(300)
def test_every_way_of_ingest_takes_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SHOP", parts.SHOP._replace(users=150, items=500, days=60.0))
    monkeypatch.setattr(ingest, "POLL_S", 0.01)
    chosen = options(tmp_path)
    chosen.events = 0
    rows = rows_of(ingest.measure(chosen, tmp_path))
    assert [row[0] for row in rows] == [ingest.OURS, ingest.RAW, ingest.PLAIN]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)


def test_memory_is_measured_per_view(tmp_path: Path) -> None:
    rows = rows_of(memory.measure(options(tmp_path), tmp_path))
    assert [row[0] for row in rows] == ["`user`", "`user_category`"]
