"""The page of benchmarks; and the one-core benchmarks, small, with their checks, which must be able to fail."""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch

from bench import embedded, encoders, index, lifelong, parts, rivals, table, trained, updates
from bench.items import Items, again, draw, users
from infra.local import embedded as parts_of_up
from infra.local.processes import Supervisor
from models.codes.codebook import Codebook
from models.index import ItemIndex, Sizes


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


@pytest.mark.parametrize("kind", ["clustered", "loose"])
def test_drawn_items_are_unit_vectors_in_categories_of_zipf_sizes(kind):
    items, other = draw(kind, 2_000, seed=3), draw(kind, 2_000, seed=3)
    np.testing.assert_array_equal(items.vectors, other.vectors)
    np.testing.assert_allclose(np.linalg.norm(items.vectors, axis=1), 1, atol=1e-5)
    assert len(items.sizes) == 100
    assert items.sizes.min() >= 1
    assert items.sizes[0] > 5 * items.sizes[10]
    assert (items.category[items.of(7)] == 7).all()
    assert len(items.of(7)) == items.sizes[7]
    asked = users(items, 20, by_size=False)
    assert asked.long.shape == (20, 8, 64)
    assert all(len({*mine}) == 8 for mine in asked.categories.tolist())


def test_trained_items_are_each_drawn_once_before_any_is_drawn_again():
    vectors = draw("clustered", 200).vectors
    items = again(vectors, [f"c{number % 7}" for number in range(200)], 500)
    best = (items.vectors @ vectors.T).argmax(1)
    assert sorted(best[:200].tolist()) == list(range(200))
    assert len({(int(item), int(category)) for item, category in zip(best[:200], items.category, strict=False)}) == 200


@pytest.fixture(scope="module")
def small():
    items = draw("clustered", 3_000)
    ordered = rivals.Ordered(items)
    flat, asked = rivals.Flat(ordered), users(items, 12)
    return items, ordered, asked, flat.categories(asked), flat.pool(asked)


def ways(items: Items, ordered: rivals.Ordered):
    yield index.Ours(items)
    yield index.Device(ordered, "cpu")
    ivf = rivals.IvfPq(ordered)
    ivf.in_category = ivf.in_pool = rivals.Effort(64, 1_000)
    yield ivf
    ivf.select = True
    yield ivf
    graph = rivals.graph(ordered)
    if graph is not None:
        graph.in_category, graph.in_pool = rivals.Effort(3_000, 3_000), rivals.Effort(1_000, 100)
        yield graph


def test_every_way_finds_what_exact_search_finds(small):
    items, ordered, asked, categories, pool = small
    best = np.argsort(-(items.vectors @ asked.short[0]))[:100]
    assert pool[0].tolist() == best.tolist()
    here = items.of(int(asked.categories[0, 0]))
    wanted = here[np.argsort(-(items.vectors[here] @ asked.long[0, 0]))][:100]
    assert categories[0, 0].tolist() == [*wanted.tolist(), *[-1] * (100 - len(wanted))]
    for way in ways(items, ordered):
        found = way.categories(asked)
        assert rivals.recall(found, categories) > 0.9, way.name
        assert rivals.recall(way.pool(asked), pool) > 0.9, way.name
        for user, place in np.ndindex(asked.categories.shape):
            mine = found[user, place][found[user, place] >= 0]
            assert (items.category[mine] == asked.categories[user, place]).all(), way.name
            assert len({*mine.tolist()}) == len(mine), way.name


def test_recall_counts_what_is_missing():
    wanted = np.array([[1, 2, 3, 4], [5, -1, -1, -1]])
    assert rivals.recall(wanted, wanted) == 1
    assert rivals.recall(np.array([[4, 9, -1, 1], [-1, -1, -1, -1]]), wanted) == 0.25


def test_a_way_is_tuned_to_the_first_effort_that_is_enough(small):
    _, ordered, asked, categories, _ = small
    ivf = rivals.IvfPq(ordered)
    ivf.select = True
    efforts = [rivals.Effort(1, 10), rivals.Effort(64, 2_000), rivals.Effort(128, 3_000)]
    rivals.tuned(ivf, "in_category", efforts, lambda: ivf.categories(asked), categories, 0.95)
    assert ivf.in_category == efforts[1]


@pytest.fixture
def changing():
    items = draw("clustered", 2_000)
    codebook = Codebook.train(items.vectors, 8, 0)
    held = ItemIndex(codebook, items.vectors, items.ids, items.categories, sizes=Sizes(segment=100))
    plan = updates.planned(items, codebook, 400)
    return items, held, plan, updates.Truth(items, 100)


def test_updates_are_seen_and_hits_are_right(changing, monkeypatch):
    items, held, plan, truth = changing
    monkeypatch.setattr(updates, "EVERY_S", 0.005)
    stop, compactions, sent = threading.Event(), [], SimpleQueue()
    with ThreadPoolExecutor(2) as pool:
        compacting = pool.submit(updates._compact, held, stop, compactions)
        searching = pool.submit(updates._search, held, truth, users(items, 20), stop, sent, 60)
        updates._update(held, truth, plan, sent)
        stop.set()
        searched = searching.result()
        compacting.result()
    assert searched.violations == searched.unseen == 0
    assert [len(searched.visible[kind]) for kind in updates.KINDS] == [100] * 4
    assert searched.hits > 0
    assert {step.kind for step in plan} == {*updates.KINDS}
    assert len(held) == 2_000


@pytest.mark.parametrize("kind", updates.KINDS)
def test_a_change_that_was_not_applied_is_a_violation(changing, kind):
    items, held, plan, _ = changing
    missed = [step for step in plan if step.kind == kind][:3]
    nothing = updates.State(0, -1, np.zeros(64, np.float32))
    states = [updates.State(0, int(category), vector) for category, vector in zip(items.category, items.vectors, strict=True)]
    before = [states[step.item] if step.item < len(items) else nothing for step in missed]
    assert [updates._unseen(held.look(), missed, before, turn) for turn in range(3)] == [3, 3, 3]
    sent: SimpleQueue[updates.Applied] = SimpleQueue()
    for turn in range(3):
        sent.put(updates.Applied(turn, 0.0, missed, before))
    assert updates._looked_for(held, sent, {kind: [] for kind in updates.KINDS}) == 9


def test_a_hit_that_was_wrong_at_the_time_is_a_violation():
    items = draw("clustered", 200)
    truth = updates.Truth(items, 1)
    query = items.vectors[3][None]
    category, score = np.array([items.category[5]]), items.vectors[5] @ query[0]

    def wrong(item, score, category, since, until):
        return truth.wrong(np.array([item]), np.array([score]), query, np.array([category]), since, until)

    own = int(category[0])
    assert wrong(5, score, own, 0, 0) == wrong(5, score, -1, 0, 0) == 0
    assert wrong(5, score + 0.01, own, 0, 0) == 1  # another vector's score
    assert wrong(5, score, own + 1, 0, 0) == 1  # another category
    assert wrong(200, 0.0, -1, 0, 0) == 1  # not there yet
    truth.change(1, 5, -1, items.vectors[5])
    assert wrong(5, score, own, 0, 0) == 0  # looked at before the deletion began
    assert wrong(5, score, own, 0, 1) == 0  # or while it was under way
    assert wrong(5, score, own, 1, 1) == 1  # but not after it
    truth.change(2, 200, 4, items.vectors[9])
    assert wrong(200, items.vectors[9] @ query[0], 4, 1, 2) == 0
    assert wrong(200, items.vectors[9] @ query[0], 4, 1, 1) == 1


def options(**more):
    return argparse.Namespace(data=Path("missing.parquet"), events=300, items=1_500, update_seconds=0.6, **more)


def test_lifelong_ways_agree_and_are_measured(monkeypatch, tmp_path):
    for name, value in {"LENGTH": 300, "USERS": 3, "JUDGED": 4, "ROUNDS": 1}.items():
        monkeypatch.setattr(lifelong, name, value)
    monkeypatch.setattr(parts, "SHOP", parts.SHOP._replace(users=12, items=300, categories=6, days=5.0))
    monkeypatch.setattr(trained, "EVENTS", 300)
    page = lifelong.measure(options(), tmp_path)
    assert page.count("| exact attention") == 8
    assert page.count("| Everlong: ") == 9


def test_folded_attention_is_the_attention():
    attention = lifelong.Attention(128, 64)
    target, history = torch.randn(1, 128), torch.randn(1, 40, 128)
    np.testing.assert_allclose(attention.folded(target[0], history[0]), attention.over(target, history)[0], atol=1e-4)


def test_updates_are_a_section():
    page = updates.measure(options(), Path())
    assert "Changes not visible: 0 of 600." in page
    rows = [line for line in page.splitlines() if line.startswith("|") and ("idle" in line or "changes per second" in line)]
    assert [row.split("|")[-2].strip() for row in rows] == ["0", "0", "0"]  # violations


def test_the_footprint_is_about_what_the_formula_says():
    command = [sys.executable, "-m", "bench.footprint", "20000"]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=parts.__file__.rsplit("/", 2)[0]).stdout)
    assert 0.5 < told["measured"] / sum(told["formula"].values()) < 2


def test_encoders_are_measured_on_histories_of_all_lengths(monkeypatch, tmp_path):
    for name, value in (("SERVED", 4), ("LEARNT", 6), ("ROUNDS", 1)):
        monkeypatch.setattr(encoders, name, value)
    monkeypatch.setattr(parts, "SHOP", parts.SHOP._replace(users=5, items=50, categories=4, days=5.0))
    page = encoders.measure(argparse.Namespace(data=tmp_path / "missing.parquet", events=0), tmp_path)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert [int(cells[1]) for cells in rows] == [4] * 4 + [6] * 4
    assert all(int(cells[3]) <= int(cells[1]) for cells in rows)
    assert all(float(cells[3]) == int(cells[1]) and float(cells[2]) == 1 for cells in rows if "full" in cells[0] and "one" not in cells[0])


def test_the_embedded_broker_is_sampled(tmp_path: Path):
    with Supervisor(tmp_path / "logs") as supervisor:
        parts_of_up.start_broker(supervisor, tmp_path)
        samples = embedded._sample(supervisor, os.getpid(), tmp_path / "broker", 0.3, 0.1)
    assert all(sample.resident["broker"] > 1e6 and sample.disk > 0 for sample in samples)
    embedded._write(tmp_path / "samples.csv", samples)
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == len(samples) + 1
    assert len(embedded._table(samples)) == 2 + embedded.PARTS


def test_the_slope_of_a_short_run_is_that_of_a_day():
    samples = [embedded.Sample(second, {"broker": 100_000_000 + 1_000 * second}, 50_000_000) for second in range(0, 3600, 10)]
    said = "".join(embedded._slopes(samples, Counter({"clicks": 359_000})))
    assert "memory +9 ± 0 MB in 24 h, from 104 MB" in said
    assert "the folder +0 ± 0 MB in 24 h, from 50 MB" in said
