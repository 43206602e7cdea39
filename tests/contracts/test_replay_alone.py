"""`everlong replay PATH` where nothing runs: a part of the real file through the embedded broker and store; each row as offline."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from features import sources
from features.events import Click, Order
from infra.local import embedded
from infra.local.processes import Supervisor
from infra.settings import load_settings
from infra.wiring import open_online_store
from tests.beside import data_file
from tests.broker.system import differing

ROWS = 25_000


@pytest.mark.data
@pytest.mark.timeout(900)
def test_a_real_file_becomes_the_rows_that_it_says_and_the_counts_add_up(tmp_path):
    table = pq.read_table(data_file("taobao_users.parquet")).slice(0, ROWS)
    file = tmp_path / "part.parquet"
    pq.write_table(table, file)
    events = list(sources.read(file))
    expected = {
        "clicks": sum(isinstance(event, Click) for event in events),
        "orders": sum(isinstance(event, Order) for event in events),
        "items": len(set(table["item"].to_pylist())),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERLONG_")}
    environment["EVERLONG_DATA_DIR"] = str(tmp_path)
    command = [sys.executable, "-m", "infra.cli", "replay", str(file), "--speed", "max", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout)
    assert answer["users_without_candidates"] == []
    assert answer["refused_rows"] == 0
    taken = {topic: line["sent"] for topic, line in answer["topics"].items()}
    assert taken == expected
    for line in answer["topics"].values():
        assert (line["applied"], line["duplicate"], line["dead"], line["redelivered"]) == (line["sent"], 0, 0, 0)

    with Supervisor(tmp_path / "logs") as supervisor:
        url = embedded.start_store(supervisor, tmp_path, persist=True)
        store = open_online_store(load_settings(store_url=SecretStr(url)), wait_s=30)
        rows, wrong = differing(store, sources.read(file))
        store.close()
    assert wrong == []
    assert rows > len({event.user_id for event in events})
