"""An index that starts from its snapshot goes on where that was made, or begins anew where that cannot be."""

import numpy as np
import pytest

from models.bundle import save
from stream.serving.live_index import LiveIndex
from stream.serving.snapshot import Snapshots
from tests.live_index import NOBODY, Told, announced, apply_record, check, code, follow, named, say, vectors_of
from tests.tiny_bundle import quickly_trained


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    monkeypatch.setattr("stream.serving.snapshot.ranges", lambda connection, topic: {0: (0, 9), 1: (2, 9)})
    return lambda epoch=0: Snapshots(tmp_path / "data", "t.item-codes", epoch, 300.0)


def serving(directory, registry, snapshots):
    return LiveIndex(directory, "cpu", NOBODY, "item-codes", registry, Told(), snapshots)


def test_a_start_from_a_snapshot_goes_on_where_it_was_made(directory, registry, snapshots):
    live = serving(directory, registry, snapshots())
    apply_record(registry, announced(1, begins={0: 0}, ends={0: 1, 1: 1}), named(1, 0, 15))
    say(live, ("new", code("new", title="blue")), ("i0-1", None), offsets={0: 7, 1: 3})
    follow(live)
    live.save()
    again = serving(directory, registry, snapshots())
    assert again.offsets == {0: 7, 1: 3}
    assert (len(again.index), "new" in again.index, "i0-1" in again.index) == (72, True, False)
    assert (again.index.generation, set(again.index.held)) == (live.index.generation, set(live.index.held))
    place = again.serving.recommender._places["new"]
    np.testing.assert_array_equal(again.serving.recommender._vectors[place].numpy(), vectors_of(code("new", title="blue"))[0])
    check(again)


def test_a_snapshot_is_made_only_when_something_changed(directory, registry, snapshots, tmp_path):
    live = serving(directory, registry, snapshots())
    say(live, ("new", code("new")), offsets={0: 7, 1: 3})
    for _ in range(3):
        live.save()
    assert live._observer.work == ["save"]
    say(live, offsets={0: 8, 1: 3})
    live.save()
    assert live._observer.work == ["save", "save"]
    assert [folder.name for folder in (tmp_path / "data").iterdir()] == [f"index-{live.bundle}"]


@pytest.mark.parametrize("offsets", [{0: 10, 1: 3}, {0: 7, 1: 1}, {0: 7}, {0: 7, 1: 3, 2: 0}])
def test_a_snapshot_that_does_not_fit_the_topic_is_not_used(directory, registry, snapshots, offsets, caplog):
    live = serving(directory, registry, snapshots())
    say(live, ("new", code("new")), offsets=offsets)
    live.save()
    assert "new" not in serving(directory, registry, snapshots()).index
    assert "not used" in caplog.text


def test_a_snapshot_of_another_epoch_or_a_damaged_one_is_not_used(directory, registry, snapshots, tmp_path, caplog):
    live = serving(directory, registry, snapshots())
    say(live, ("new", code("new")), offsets={0: 7, 1: 3})
    live.save()
    assert "new" not in serving(directory, registry, snapshots(epoch=1)).index
    for path in (tmp_path / "data" / f"index-{live.bundle}").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    assert serving(directory, registry, snapshots()).offsets == {}
    assert caplog.text.count("not used") == 2


def test_the_snapshot_of_another_bundle_goes(directory, registry, snapshots, tmp_path):
    live = serving(directory, registry, snapshots())
    live.save()
    other = serving(save(quickly_trained(2), tmp_path / "other"), registry, snapshots())
    assert other.offsets == {}
    other.save()
    assert [folder.name for folder in (tmp_path / "data").iterdir()] == [f"index-{other.bundle}"]


def test_a_snapshot_that_cannot_be_written_is_logged(directory, registry, snapshots, tmp_path, caplog):
    live = serving(directory, registry, snapshots())
    (tmp_path / "data").write_text("a file in the way")
    live.save()
    assert "was not written" in caplog.text
