"""Going on from a bundle: what it learnt from is history, what is newer is learnt, rows keep their place, else it is refused."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from typer.testing import CliRunner

from features import sources
from features.history import deeds, moments
from infra.cli import make_app
from infra.training.log import read_log
from models.bundle import MANIFEST, fingerprint, load, save
from models.codes.codebook import Codebook
from models.encoding.contents import contents
from models.encoding.inputs import Positions
from models.encoding.vocabulary import FIRST, UNKNOWN, Vocabulary
from models.errors import WarmStartError
from models.network.ulim import Network
from models.training.dataset import build
from models.training.train import learn, train
from models.training.warm_start import begin_new, config_for, take_over
from tests.tiny_bundle import CONFIG, MINUTE, START_MS, shop

NEW_MS = START_MS + 1200 * MINUTE  # when the new items come
ENOUGH = CONFIG.replace(per_user=10_000, per_basket=100)


def assortment():
    """The tiny shop, two thirds of its items from the start on; those of the last third come at `NEW_MS`, and nothing describes them."""
    log, catalogue = shop(start_ms=START_MS, users=40, items=48)
    old, new = {}, set()
    for item in catalogue:
        category, n = item.item_id.split("-")
        if int(n) >= 32:
            old[item.item_id] = f"{category}-{int(n) - 16}"
            new.add(item.item_id)

    def then(line):
        return msgspec.structs.replace(line, item_id=old.get(line.item_id, line.item_id))

    events = []
    for event in log:
        if event.ts >= NEW_MS:
            events.append(event)
        elif hasattr(event, "lines"):
            events.append(msgspec.structs.replace(event, lines=[then(line) for line in event.lines]))
        else:
            events.append(then(event) if hasattr(event, "item_id") else event)
    items = [msgspec.structs.replace(i, ts=NEW_MS, title="", image_embedding=None) if i.item_id in new else i for i in catalogue]
    return events, items, new


class World(NamedTuple):
    folder: object
    parent: object
    events: list
    items: list
    new: set


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A bundle learnt from the days before the new items, that log, and the whole one."""
    folder = tmp_path_factory.mktemp("tuning")
    events, items, new = assortment()
    first = [event for event in events if event.ts < NEW_MS], [item for item in items if item.ts < NEW_MS]
    sources.write(folder / "first.jsonl", [*first[1], *first[0]])
    sources.write(folder / "all.jsonl", [*items, *events])
    parent = train(*first, CONFIG, seed=1, data="first.jsonl")
    save(parent, folder / "parent")
    return World(folder, parent, events, items, new)


def everlong(*words):
    return CliRunner().invoke(make_app(), [*map(str, words)])


def test_the_command_goes_on_from_a_bundle(world):
    out, log = world.folder / "child", world.folder / "log.csv"
    command = (sys.executable, "-m", "infra.cli", "train", "--data", world.folder / "all.jsonl", "--from", world.folder / "parent")
    environ = os.environ | {"EVERLONG_DATA_DIR": str(world.folder / "data"), "OMP_NUM_THREADS": "1"}
    words = (*map(str, command), "--out", str(out), "--log", str(log), "--json")
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    parent, child, told = world.parent, load(out), json.loads(done.stdout)
    rows = read_log(log)
    assert told["parent"] == child.manifest.parent == parent.generation != child.generation
    assert told["earlier"] == ["first.jsonl"]
    assert child.manifest.steps == parent.manifest.steps + len(rows)
    assert (
        max(float(row[4]) for row in rows) <= child.manifest.config.training.warm_start_rate < child.manifest.config.training.learning_rate
    )
    assert child.manifest.cut_ms > NEW_MS > parent.manifest.cut_ms
    assert child.vocabulary.items[: len(parent.vocabulary.items)] == parent.vocabulary.items
    assert child.vocabulary.categories == parent.vocabulary.categories
    seen = {event.item for done in deeds(world.events).values() for event in done.events if event.ts < child.manifest.cut_ms}
    assert set(child.vocabulary.items) == seen > set(parent.vocabulary.items)
    assert not world.new & set(parent.vocabulary.items)
    assert len(world.new & seen) > 0.5 * len(world.new)
    assert world.new <= set(child.items.ids)
    targets = {}
    for moment in moments(deeds(world.events), parent.manifest.cut_ms, child.manifest.cut_ms, CONFIG.training.per_user):
        targets[moment.user, moment.ts] = min(CONFIG.training.per_basket, len({event.item for event in moment.basket}))
    assert sum(int(row[5]) for row in rows) == CONFIG.training.epochs * sum(targets.values())

    def measured(bundle, cut_ms, log="all.jsonl"):
        asked = ("--data", world.folder / log, "--bundle", bundle, "--cut", cut_ms, "--baselines", "none", "--json")
        return everlong("evaluate", *asked)

    before, after = (measured(world.folder / name, child.manifest.cut_ms) for name in ("parent", "child"))
    for n in (0, 1):  # of all items, and of items that were new to the user
        was, now = (json.loads(found.stdout)["report"]["sections"][n]["rows"]["cascade"]["ndcg@50"]["mean"] for found in (before, after))
        assert now > was
    for log in ("all.jsonl", "first.jsonl"):  # what the child learnt from cannot be tested, under whichever name
        refused = measured(out, parent.manifest.cut_ms, log)
        assert "the bundle was trained on " in str(refused.exception)


def tuned(world, cut_ms=None, **changed):
    config = config_for(world.parent, {"epochs": 1, **changed})
    known = {user: done for user, done in deeds(event for event in world.events if event.ts < cut_ms).items() if done.events}
    return learn(known, world.items, config, 3, cut_ms=cut_ms, parent=world.parent)


def test_the_same_parent_and_seed_give_the_same_bundle_and_leave_the_parent_as_it_is(world):
    one, other = (tuned(world, NEW_MS + 400 * MINUTE) for _ in range(2))
    assert one.generation == other.generation
    assert one.codebook.generation == other.codebook.generation
    assert fingerprint(world.parent.network) == world.parent.generation


def test_codes_start_from_those_of_the_parent(world):
    child = tuned(world, NEW_MS + 400 * MINUTE)
    at = [child.items.ids.index(item) for item in world.parent.items.ids]
    cold = Codebook.train(child.items.vectors, child.manifest.subspaces, 3).encode(child.items.vectors)[at]
    before = world.parent.items.codes
    assert (before != child.items.codes[at]).mean() < 0.5 * (before != cold).mean()


def test_what_is_older_is_history_and_no_example():
    """Examples from a moment on are the last of all examples of each user, with the same history in them."""
    log, catalogue = shop(start_ms=START_MS, users=6, events=20)
    done, since = deeds(log), START_MS + 400 * MINUTE
    vocabulary = Vocabulary.of({item.category_id for item in catalogue}, {item.item_id for item in catalogue})
    positions = Positions({item.item_id: at for at, item in enumerate(catalogue)}, vocabulary)
    every, newer = (build(done, positions, ENOUGH, log[-1].ts, start) for start in (0, since))
    late = [moment.ts >= since for moment in moments(done, until_ts=log[-1].ts) for _ in {event.item for event in moment.basket}]
    assert 0 < sum(late) == len(newer.item) < len(every.item) == len(late)
    for whole, part in zip(every.short, newer.short, strict=True):
        width = min(whole.shape[1], part.shape[1])
        np.testing.assert_array_equal(whole[late][:, :width], part[:, :width]) if whole is not every.short.text else None
    np.testing.assert_array_equal(every.item[late], newer.item)
    assert (newer.short.kind > 0).sum(1).max() == ENOUGH.network.short


@given(st.lists(st.text(max_size=3), unique=True), st.lists(st.text(max_size=3)))
def test_known_ids_keep_their_rows_and_new_ones_follow(old, more):
    before = Vocabulary(old, old)
    after = before.grown(more, reversed(more))
    assert [after.item(item) for item in old] == [after.category(item) for item in old] == [*range(FIRST, FIRST + len(old))]
    assert set(after.items) == set(after.categories) == {*old, *more}
    assert len(after.items) == after.item_rows - FIRST == len({*old, *more})


def test_known_rows_are_taken_over_and_new_ones_start_at_their_mean():
    def tables(rows):
        return torch.nn.ModuleDict({"item": torch.nn.Embedding(rows, 8), "out": torch.nn.Linear(8, 3)})

    torch.manual_seed(0)
    old, new = tables(50), tables(60)
    take_over(new, old)
    before, after = old["item"].weight, new["item"].weight
    assert torch.equal(after[:50], before)
    assert torch.equal(new["out"].weight, old["out"].weight)
    mean = before[UNKNOWN:].mean(0)
    away = (after[50:] - mean).norm(dim=1)
    assert 0 < away.min() <= away.max() < 0.5 * (before - mean)[FIRST:].norm(dim=1).mean()
    assert len(torch.unique(after[50:], dim=0)) == 10
    for other in (tables(49), torch.nn.ModuleDict({**tables(50), "more": torch.nn.Linear(2, 2)})):
        with pytest.raises(WarmStartError, match="train again, without --from"):
            take_over(other, old)


def test_the_id_of_a_new_item_begins_as_its_content_and_turns_no_vector(world):
    parent, unit = world.parent, world.parent.manifest.config.network
    _, described = shop(items=48)
    grown = parent.vocabulary.grown((), world.new)
    network = Network(unit, grown.category_rows, grown.item_rows, parent.manifest.widths)
    take_over(network, parent.network)
    known, new = (contents(described, words, unit, parent.manifest.widths) for words in (parent.vocabulary, grown))
    begin_new(network.psu, new, parent.vocabulary.item_rows)
    with torch.no_grad():
        now, before = network.psu.items(new), parent.network.psu.items(known)
    assert now.present[:, 0].sum() == before.present[:, 0].sum() + len(world.new)
    torch.testing.assert_close(F.normalize(now.item, dim=-1), F.normalize(before.item, dim=-1), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--dim", 32), "dim 16, not 32"),
        (("--coded", "fused,id"), "coded"),
        (("--data", "first"), "nothing is new"),
        (("--cut", START_MS + 600 * MINUTE), "nothing is new"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_with_the_remedy(world, tmp_path, words, sentence):
    if words == ("--data", "first"):
        words = ("--data", tmp_path / "old.jsonl")
        until = world.parent.manifest.cut_ms
        sources.write(words[1], [*world.items, *(event for event in world.events if event.ts < until)])
    data = () if "--data" in words else ("--data", world.folder / "all.jsonl")
    done = everlong("train", *data, "--from", world.folder / "parent", "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert sentence in said
    assert "--from" in said
    assert "train without" in said or "give data with newer events" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("field", "value", "sentence"), [("format", 0, "format is 0"), ("cut_ms", None, "train it again")])
def test_a_bundle_of_another_version_is_refused(world, tmp_path, field, value, sentence):
    directory = save(world.parent, tmp_path / "bundle")
    manifest = json.loads((directory / MANIFEST).read_bytes())
    (directory / MANIFEST).write_text(json.dumps({**manifest, field: value}))
    done = everlong("train", "--data", world.folder / "all.jsonl", "--from", directory, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.replace("│", " ").split())
