"""`everlong evaluate` on files good and bad, and the page it writes."""

import json

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from features import sources
from features.errors import SourceError
from features.events import Click, Item
from features.history import deeds
from infra.cli import make_app
from models.bundle import save
from models.config import Config
from models.evaluation import by_users, temporal
from models.evaluation.prediction_points import offered
from models.training.train import train
from research.errors import SeenInTrainingError
from research.evaluation.evaluation import Cost, budget_s, refuse_seen
from research.evaluation.inputs import EvaluationPlan, load_data
from tests.tiny_bundle import CONFIG, START_MS, shop

QUICK = CONFIG.replace(epochs=1)


def written(path, users=20, events=25):
    log, catalogue = shop(start_ms=START_MS, users=users, events=events)
    sources.write(path, [*catalogue, *log])
    return path


def test_a_bundle_that_has_seen_the_test_is_refused():
    events, catalogue = shop(start_ms=START_MS, users=12, events=20)
    split = temporal(deeds(events), 0.2)
    config = QUICK.replace(holdout=0.2)
    manifest = train(events, catalogue, config, seed=0, data="log.jsonl").manifest
    refuse_seen(manifest, "log.jsonl", split)
    refuse_seen(manifest, "other.jsonl", temporal(deeds(events), 0.5))
    with pytest.raises(SeenInTrainingError, match=f"--cut {split.cut_ms}"):
        refuse_seen(manifest, "log.jsonl", temporal(deeds(events), 0.5))
    with pytest.raises(SeenInTrainingError, match="leave out --bundle"):
        refuse_seen(manifest, "log.jsonl", by_users(deeds(events), 0))
    with pytest.raises(SeenInTrainingError, match="train it again"):
        refuse_seen(msgspec.structs.replace(manifest, cut_ms=None), "log.jsonl", split)


def test_contenders_have_the_seconds_of_one_seed_of_ours_and_of_choosing_its_shares():
    costs = {"choosing shares": Cost(100.0, 1), "cascade": Cost(600.0, 3)}
    assert budget_s(costs) == 300.0
    assert budget_s({"cascade": costs["cascade"]}) == 200.0
    assert budget_s({"cascade": Cost(9.0, 3)}) == budget_s({}) == 60.0


def everlong(*arguments):
    return CliRunner().invoke(make_app(), ["evaluate", *map(str, arguments)])


def test_the_command_prints_json_and_writes_its_section_again(tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Mine\n\nstays\n")
    arguments = ("--data", written(tmp_path / "log.jsonl"), "--epochs", 1, "--dim", 16, "--seeds", 2, "--out", page, "--json")
    done = everlong(*arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["seeds"] == [0, 1]
    assert len(told["report"]["sections"][0]["rows"]["cascade"]["recall@50"]["seeds"]) == 2
    simple = {"most popular", "popular lately", "popular in categories", "seen before", "seen often", "item-kNN"}
    minus = told["report"]["sections"][0]["minus"]
    assert set(minus["cascade"]) == {"cascade without repeats", *simple}
    assert set(minus["cascade without repeats"]) == simple
    assert told["costs"]["cascade"]["seconds"] > 0 < told["peak_bytes"]
    first = page.read_text()
    assert first.startswith("# Mine\n\nstays\n")
    assert all(word in first for word in ("`log.jsonl`, temporal split", "Commit", "Seeds 0, 1", "CPU seconds per seed", "ahead"))
    again = everlong(*arguments, "--baselines", "none")
    assert again.exit_code == 0, again.output
    assert page.read_text().count("## `log.jsonl`, temporal split") == 1
    assert "item-kNN" not in page.read_text()


def test_the_command_tests_a_given_bundle(tmp_path):
    path = written(tmp_path / "log.jsonl")
    events, catalogue = shop(start_ms=START_MS, users=20, events=25)
    save(train(events, catalogue, QUICK, seed=0, data="elsewhere"), tmp_path / "bundle")
    done = everlong("--data", path, "--bundle", tmp_path / "bundle", "--json", "--baselines", "seen before")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["report"]["sections"][0]["rows"].keys() == {"cascade", "cascade without repeats", "seen before"}
    save(train(events, catalogue, QUICK.replace(holdout=0.0), seed=0, data="log.jsonl"), tmp_path / "bundle")
    refused = everlong("--data", path, "--bundle", tmp_path / "bundle")
    assert isinstance(refused.exception, SeenInTrainingError)


@pytest.mark.parametrize("arguments", [["--baselines", "everything"], ["--cut", "yesterday"], ["--split", "by-weekday"], ["--seeds", 0]])
def test_wrong_usage_exits_2(arguments, tmp_path):
    assert everlong("--data", written(tmp_path / "log.jsonl", users=3, events=4), *arguments).exit_code == 2


def test_an_item_that_only_held_out_events_tell_of_cannot_be_found(tmp_path):
    """That it is in the file at all would give away that it is wanted; one that is described is found or not on its merits."""
    path = tmp_path / "log.jsonl"
    for described in (False, True):
        log, catalogue = shop(start_ms=START_MS, users=10, events=10)
        last = max(event.ts for event in log)
        late = Click(event_id="late", user_id="u0", item_id="late", category_id="c0", ts=last + 1)
        items = [*catalogue, Item(item_id="late", category_id="c0", title="late thing", ts=last + 1)] if described else []
        sources.write(path, [*items, *log, late])
        loaded = load_data(EvaluationPlan(str(path), Config()))
        split = temporal(loaded.done, 0.1)
        found = {item.item_id for item in offered(loaded.described, loaded.inferred, split, []).catalogue}
        assert ("late" in found) is described
        known = {event.item for deeds in split.known.values() for event in deeds.events}
        assert found >= known if described else found == known


@pytest.mark.parametrize("steps", [1, 9, 10, 11])
def test_any_number_of_steps_can_be_trained(steps):
    events, catalogue = shop(start_ms=START_MS, users=4, events=8)
    train(events, catalogue, QUICK.replace(epochs=steps, batch=10**6), seed=0)


def test_a_file_without_events_says_what_is_needed(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"event_id": "1", "user_id": "u", "query_id": "q", "text": "shoe", "ts": 5}\n{"user_id": "u", "ts": 1}\n')
    with pytest.raises(SourceError, match=r"searches only; its first refused row is row 2.*clicks or orders"):
        load_data(EvaluationPlan(str(path), Config()))
    path.write_text('{"nothing": 1}\n')
    with pytest.raises(SourceError, match="no column for user, item, time"):
        load_data(EvaluationPlan(str(path), Config()))


def test_items_of_a_table_of_products_keep_what_it_says(tmp_path):
    log, catalogue = shop(start_ms=START_MS, users=10, events=10)
    sources.write(tmp_path / "log.jsonl", log)
    bare = min(log, key=lambda event: event.ts).item_id  # touched from the start, and not in the table
    described = {item.item_id: item for item in catalogue if item.item_id != bare}
    columns = {
        "product_id": list(described),
        "product_category": [item.category_id for item in described.values()],
        "product_type": [item.title for item in described.values()],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "products.parquet")
    reading = sources.Reading(tmp_path / "log.jsonl", products=sources.Products(tmp_path / "products.parquet"))
    loaded = load_data(EvaluationPlan("log.jsonl", Config(), reading))
    found = offered(loaded.described, loaded.inferred, temporal(loaded.done, 0.1), []).catalogue
    assert {item.item_id: item.title for item in found} == {item_id: item.title for item_id, item in described.items()} | {bare: ""}


def test_items_described_in_the_file_keep_what_it_says(tmp_path):
    loaded = load_data(EvaluationPlan(str(written(tmp_path / "log.jsonl")), Config()))
    assert {item.title for item in loaded.described} > {"red thing of 0"}
    assert loaded.inferred == []
    few = load_data(EvaluationPlan(str(tmp_path / "log.jsonl"), Config(), max_users=4))
    assert len(few.done) == 4
    assert few.done.keys() < loaded.done.keys()
