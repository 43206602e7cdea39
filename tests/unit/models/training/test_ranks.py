"""Several processes that `torchrun` starts train one bundle: the same weights in all of them, one writes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from infra.settings import load_settings
from infra.training.log import read_log
from infra.wiring import choose_device
from models.bundle import load
from models.training.devices import Ranks, own_card
from tests.beside import ROOT

TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SHOP = ("--users", "40", "--items", "120", "--categories", "6", "--days", "20", "--dim", "16", "--epochs", "12")
LIMIT_S = 200


def torchrun(folder, *words):
    environ = os.environ | {"EVERLONG_DATA_DIR": str(folder / "data"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run((*TWO, *words), cwd=folder, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.slow
def test_two_processes_train_one_bundle(tmp_path):
    out, log, kept = tmp_path / "bundle", tmp_path / "log.csv", tmp_path / "kept"
    command = ("-m", "--", "infra.cli", "train", *SHOP, "--until", "2026-01-31T12:00", "--json", "--out", str(out), "--log", str(log))
    done = torchrun(tmp_path, *command, "--checkpoints", str(kept))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # one document: one process printed
    bundle = load(out)
    assert bundle.generation == told["generation"]
    assert told["metrics"]["cascade"]["recall@50"] > told["metrics"]["most popular"]["recall@50"] > 0
    for phase in ("pretraining", "training"):
        rows = [row for row in read_log(log) if row[0] == phase]
        assert [int(row[1]) for row in rows] == [*range(1, int(rows[0][2]) + 1)]
        assert float(rows[-1][3]) < float(rows[0][3])
    assert sorted(path.name for path in kept.iterdir()) == ["1-pretraining.safetensors", "2-training.safetensors"]
    assert done.stderr.count("training: 0") <= 1


SCRIPT = """
from pathlib import Path

import numpy as np
import torch
from models.errors import RanksDifferError
from models.training.devices import joined
from models.training.loop import Run, fit
from models.training.checkpoints import digest
from tests.unit.models.training.test_loop import network, phase

with joined("cpu") as ranks:
    other = ranks.rank == 1
    for what in ("data", "seed", "weights", "nothing"):
        model = network(seed=int(other and what == "seed"))
        todo = phase(model)._replace(data=(np.arange(4 + (other and what == "data")),), settings="small")

        def tell(now):
            if other and what == "weights" and now.step == 5:
                with torch.no_grad():
                    next(model.parameters())[0] += 1

        try:
            fit(model, todo, np.random.default_rng(5), tell, Run(ranks=ranks))
            end = digest(tensor.numpy() for tensor in model.state_dict().values())
        except RanksDifferError as error:
            end = error
        Path(f"{what}-{ranks.rank}").write_text(str(end))
"""


@pytest.mark.slow
def test_ranks_end_with_identical_weights_or_all_say_what_differs(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = torchrun(tmp_path, str(tmp_path / "script.py"))
    assert done.returncode == 0, done.stderr
    ends = {(path.name[:-2], int(path.name[-1])): path.read_text() for path in tmp_path.glob("*-[01]")}
    assert len(ends) == 8
    assert ends["nothing", 0] == ends["nothing", 1]
    for what, named in (("data", "data"), ("seed", "weights"), ("weights", "weights")):
        assert ends[what, 0] == ends[what, 1]
        assert ends[what, 0].startswith(f"rank 1 does not learn what rank 0 learns ({named} ")
        assert ends[what, 0].endswith("give all processes the same arguments, data and version")


def test_a_slice_each_makes_the_whole_batch():
    for size in (1, 2, 3, 7):
        for length in (0, 1, 5, 8):
            slices = [Ranks(rank, size).mine(np.arange(length)) for rank in range(size)]
            assert np.concatenate(slices).tolist() == list(range(length))
            assert max(map(len, slices)) - min(map(len, slices)) <= 1


KINDS = """
import os
from pathlib import Path

import torch.distributed as dist
from models.errors import RanksDifferError
from models.training.devices import joined

rank = os.environ["RANK"]
try:
    with joined("cpu" if rank == "0" else "mps"):
        Path("joined").touch()
except RanksDifferError as error:
    Path(f"refused-{rank}").write_text(str(error))
assert not dist.is_initialized()  # threads of a group that is left open may abort a process at its end
"""


@pytest.mark.slow
def test_ranks_on_devices_of_several_kinds_are_refused_before_they_begin(tmp_path):
    (tmp_path / "script.py").write_text(KINDS)
    done = torchrun(tmp_path, str(tmp_path / "script.py"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "joined").exists()
    for rank in (0, 1):
        assert (tmp_path / f"refused-{rank}").read_text().startswith("rank 1 does not learn what rank 0 learns (device mps and not cpu)")


LEFT = """
import time
from pathlib import Path

import torch
import torch.distributed as dist
from models.training.devices import joined


def destroy():
    Path("waited").touch()
    time.sleep(600)  # as NCCL's does, for ranks that are still busy with one that has gone


dist.destroy_process_group = destroy
with joined("cpu") as ranks:
    if not ranks.leads:
        raise ValueError("this rank alone")
    time.sleep(600)
"""


def test_a_rank_that_raises_alone_ends_the_others_and_waits_for_none(tmp_path):
    (tmp_path / "script.py").write_text(LEFT)
    done = torchrun(tmp_path, str(tmp_path / "script.py"))
    assert done.returncode != 0
    assert "this rank alone" in done.stderr
    assert not (tmp_path / "waited").exists()


@pytest.mark.parametrize(("environ", "card"), [({}, "cuda"), ({"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "3"}, "cuda:3")])
def test_a_rank_probes_the_card_that_is_its_own(monkeypatch, environ, card):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    probed, ones = [], torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: probed.append(device) or ones(size))
    settings = load_settings().model_copy(update={"device": "auto"})
    assert choose_device(settings, own_card()) == card
    assert probed == [card]
