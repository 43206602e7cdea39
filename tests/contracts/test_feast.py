"""A stock Feast client reads what our adapters wrote, in its own process, with nothing but the registry and the store."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from feast import FeatureStore, OnDemandFeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.transformation.udf_rehydrate import rehydrate_udf_from_source

from features.codec import pack
from features.feast.definitions import apply, arrays_name, feast_objects, online_store_config, repo_config
from features.rows import Behaviour, CategoryRow, Pair, UserRow
from features.store import Key, LogPosition, Stored
from features.store.layout import position_text, stored_name
from features.store.opening import open_store
from features.table import APPLIED, PACKED, USER_CATEGORY, VIEWS

pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature")
VERSION = LogPosition(1, 2, 3, 4)
SEQUENCE = CategoryRow(1, [Behaviour(5, 1, "shoe 1", "c", 0, 0, Pair(False, 4, 1, "röd sko")), Behaviour(6, 2, "shoe 2", "c", 3)])
ENTITIES = [{"user_id": "u 1:😀", "category": "c"}, {"user_id": "nobody", "category": "c"}]
ARRAYS = [f"{arrays_name(view)}:{name}" for view, name in (
    ("user_category", "item"), ("user_category", "ts"), ("user_category", "kind"), ("user_category", "query"),
    ("user_category", "count"), ("user_category", "folded_count"), ("user", "recent_ts"), ("user_candidates", "candidate_score"),
)]  # fmt: skip
EXPECTED = {
    "user_id": ["u 1:😀", "nobody"], "category": ["c", "c"],
    "item": [["shoe 1", "shoe 2"], []], "ts": [[5, 6], []], "kind": [["click", "order"], []], "query": [["röd sko", ""], []],
    "count": [2, 0], "folded_count": [[], []], "recent_ts": [[], []], "candidate_score": [[], []],
}  # fmt: skip
CLIENT = """
import json, sys
from feast import FeatureStore, RepoConfig
configs, features, rows = json.load(sys.stdin)
stores = [FeatureStore(config=RepoConfig(**config)) for config in configs]
print(json.dumps([store.get_online_features(features=features, entity_rows=rows).to_dict() for store in stores]))
"""


def write(url: str, project: str) -> None:
    store = open_store(url, project)
    user, category = ENTITIES[0].values()
    rows = [
        (Key("user_category", (user, category)), Stored(pack(SEQUENCE), VERSION, 6_123)),
        (Key("user", (user,)), Stored(pack(UserRow()), VERSION, 6_123)),
    ]
    assert store.write(rows) == [True, True]
    store.close()


def test_a_stock_client_in_its_own_process_gets_typed_arrays(valkey: str, valkey_cluster: str, tmp_path: Path) -> None:
    configs = []
    for at, url in enumerate((f"sqlite:///{tmp_path}/rows.db", valkey, valkey_cluster)):
        project, registry = f"p{uuid4().hex}", str(tmp_path / f"registry{at}.db")
        write(url, project)
        apply(url, registry, project)
        configs.append({"project": project, "provider": "local", "registry": registry, "online_store": online_store_config(url)})
    asked = json.dumps([configs, ARRAYS, ENTITIES])
    client = subprocess.run([sys.executable, "-W", "ignore", "-c", CLIENT], input=asked, capture_output=True, text=True, cwd=tmp_path)
    assert client.returncode == 0, client.stderr[-2000:]
    assert json.loads(client.stdout.splitlines()[-1]) == [EXPECTED] * 3


def test_the_packed_row_its_version_and_its_time_are_features(store_url: str, tmp_path: Path) -> None:
    project = f"p{uuid4().hex}"
    apply(store_url, tmp_path / "registry.db", project)
    write(store_url, project)
    client = FeatureStore(config=repo_config(store_url, tmp_path / "registry.db", project))
    row, applied = (stored_name("user_category", part) for part in (PACKED, APPLIED))
    response = client.get_online_features(features=[f"user_category:{row}", f"user_category:{applied}"], entity_rows=ENTITIES)
    found = response.to_dict(include_event_timestamps=True)
    assert found[row] == [pack(SEQUENCE), None]
    assert found[applied] == [position_text(VERSION), None]
    assert found[f"{row}__ts"][0] == 6


def test_applying_again_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    names = []
    for _ in range(2):
        client = apply(url, tmp_path / "registry" / "registry.db")
        stored = {view.name: sorted(field.name for field in view.features) for view in client.list_feature_views()}
        arrays = {view.name: [field.name for field in view.features] for view in client.list_on_demand_feature_views()}
        names.append((stored, arrays, sorted(entity.name for entity in client.list_entities())))
    assert names[0] == names[1]
    assert names[0][0] == {view.name: [stored_name(view.name, APPLIED), stored_name(view.name, PACKED)] for view in VIEWS}
    assert names[0][1] == {arrays_name(view.name): [field.name for field in view.fields] for view in VIEWS}
    assert names[0][2] == ["category", "item_id", "user_id"]


def test_source_and_function_of_the_unpackers_agree() -> None:
    views = [view for view in feast_objects() if isinstance(view, OnDemandFeatureView)]
    assert len(views) == len(VIEWS)
    for table_view, view in zip(VIEWS, views, strict=True):
        assert view.feature_transformation is not None
        source = rehydrate_udf_from_source(view.feature_transformation.udf_string)
        rows = [None, pack(SEQUENCE) if table_view is USER_CATEGORY else None]
        inputs = {f"{table_view.name}__{stored_name(table_view.name, PACKED)}": rows}
        assert source is not None
        assert source(inputs) == view.feature_transformation.udf(inputs)


@pytest.mark.parametrize("password", ["1234", "true", 'a,b="c"', "p@ss:/?#", "ü😀"])
def test_any_password_reaches_the_feast_client(password: str) -> None:
    config = online_store_config(f"rediss://me:{quote(password, safe='')}@host:1234/2")
    nodes, options = RedisOnlineStore._parse_connection_string(config["connection_string"])
    assert nodes == [{"host": "host", "port": "1234"}]
    assert options == {"username": "me", "password": password, "db": 2, "ssl": True}


def test_a_cluster_and_a_default_address() -> None:
    assert online_store_config("redis+cluster://host")["redis_type"] == "redis_cluster"
    assert online_store_config("redis+cluster://host")["connection_string"] == "host:6379"
    assert RepoConfig.model_validate(repo_config("redis://host", "registry.db")).online_store.skip_dedup


@pytest.mark.parametrize("url", ["memory://", "mysql://:hunter2@host", "redis://[::1]:1", "redis://:hun/ter2@host"])
def test_a_store_that_feast_cannot_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"store URL|Feast") as caught:
        online_store_config(url)
    assert "ter2" not in str(caught.value)
