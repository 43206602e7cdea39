"""What runs on an accelerator stays on it: codes, search, training and serving on a device of its own, beside the CPU.

Each check runs in a process of its own (tests/accelerator.py).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from features.history import deeds
from models.bundle import load, save
from models.codes.codebook import Codebook
from models.codes.lifelong import CodedHistories, CodeTable, LifelongSearch
from models.evaluation import temporal
from models.evaluation.evaluate_bundle import judged
from models.evaluation.prediction_points import offered
from models.network.ulim import Network
from models.training.checkpoints import Checkpoints
from models.training.loop import Run
from models.training.train import learn
from research import mechanisms
from research.codes.codebook_torch import TorchCodebook
from research.codes.lifelong_torch import DeviceSearch
from research.codes.scanner import FaissScanner, TorchScanner, choose
from research.mechanisms import encoding, pooling
from research.mechanisms.packing import PackedAttention
from research.mechanisms.self_pooling import SelfPooling
from tests import accelerator
from tests.beside import ROOT
from tests.drawn import drawn
from tests.tiny_bundle import CONFIG, shop

DEVICE = accelerator.NAME
LIMIT_S = 240
QUICK = CONFIG.replace(epochs=1, per_user=4)
TRAININGS = {
    "usual": (QUICK, Network),
    "codes of modalities, an attention table": (
        QUICK.replace(long=8, coded=("text", "image")),
        encoding(lambda config: PackedAttention(config.dim, config.heads), mechanisms.attention_table(8)),
    ),
    "target-free": (QUICK, mechanisms.TARGET_FREE),
    "memory": (QUICK, mechanisms.memory(4)),
    "recurrent": (
        QUICK.replace(long_negatives="pool"),
        pooling(lambda config: SelfPooling(config.dim, config.heads), mechanisms.RECURRENT),
    ),
}


def codebook_and_vectors():
    vectors = drawn(1, 3_000, 32).numpy()
    return Codebook.train(vectors, 4, seed=0, rounds=2), vectors


def in_its_own_process(check, *arguments):
    given = tuple(map(str, arguments))
    code = f"from tests.unit.models import test_accelerator as checks; checks.{check.__name__}{given}"
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr


def a_tensor_of_the_cpu_is_refused():
    accelerator.register()
    there = torch.ones(3, device=DEVICE)
    assert (there.device.type, (there + 1.0).sum().item()) == (DEVICE, 6.0)
    with pytest.raises(accelerator.TwoDevices, match="aten::add"):
        _ = there + torch.ones(3)


def codes_tables_and_the_best_stay():
    traffic = accelerator.register()
    codebook, vectors = codebook_and_vectors()
    codes = codebook.encode(vectors)
    there, here = TorchCodebook(codebook, DEVICE), TorchCodebook(codebook)
    theirs = torch.from_numpy(vectors).to(DEVICE)
    traffic.forget()
    encoded = there.encode(theirs)
    found = there.best(there.tables(theirs[:5]), encoded, 10)
    assert (traffic.entered, traffic.left) == ([], [])
    np.testing.assert_array_equal(encoded.cpu(), codes)
    np.testing.assert_array_equal(there.decode(encoded).cpu(), codebook.decode(codes))
    for mine, expected in zip(found, here.best(here.tables(torch.from_numpy(vectors[:5])), torch.from_numpy(codes), 10), strict=True):
        torch.testing.assert_close(mine.cpu(), expected)


def a_search_of_histories_stays():
    traffic = accelerator.register()
    codebook, vectors = codebook_and_vectors()
    codes, numbers, offsets = codebook.encode(vectors), np.random.default_rng(0).integers(-1, 3_000, 700), np.array([0, 300, 300, 700])
    bias, queries = drawn(2, 700).numpy(), drawn(3, 3, 2, 32).numpy()
    there = [torch.from_numpy(array).to(DEVICE) for array in (codes, vectors, queries, numbers, offsets, bias, bias > -1)]
    search = DeviceSearch(codebook, *there[:2], 64, 8)
    traffic.forget()
    positions, scores = search.search(*there[2:])
    assert (traffic.entered, traffic.left) == ([], [])
    expected = LifelongSearch(codebook, 64, 8).search(queries, CodeTable(codes, vectors), CodedHistories(numbers, offsets, bias, bias > -1))
    np.testing.assert_array_equal(positions.cpu(), expected.positions)
    np.testing.assert_allclose(scores.cpu(), expected.scores, rtol=1e-5, atol=1e-5)


def a_scan_moves_queries_and_what_it_found():
    traffic = accelerator.register()
    codebook, vectors = codebook_and_vectors()
    codes, queries = codebook.encode(vectors), vectors[:7]
    choice = choose(codebook, codes, DEVICE)
    assert isinstance(choice.scanner, TorchScanner), choice.said
    traffic.forget()
    scores, rows = choice.scanner.best(queries, 10)
    assert (traffic.entered, traffic.left) == ([(7, 32)], [(7, 10), (7, 10)])
    expected = FaissScanner(codebook, codes).best(queries, 10)
    np.testing.assert_allclose(scores, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(rows, expected[1])


def training_and_serving_agree(name, folder):
    accelerator.register()
    (events, catalogue), (config, build_network) = shop(users=10, events=20), TRAININGS[name]
    split = temporal(deeds(events), config.training.holdout)
    there = offered(catalogue, (), split, split.starts)

    def trained(device, run=None):
        to = {"cut_ms": split.cut_ms, "device": device, "run": run, "build_network": build_network}
        return judged(learn(split.known, there.catalogue, config, 0, **to), there, split, 0, device)

    expected = trained("cpu")
    for _ in range(2):  # the second time from its checkpoints
        found = trained(DEVICE, Run(Checkpoints(Path(folder) / "kept", {}, every_s=0.0)))
        weights = found.network.state_dict()
        assert {tensor.device.type for tensor in weights.values()} == {DEVICE}
        for part, tensor in expected.network.state_dict().items():
            torch.testing.assert_close(weights[part].cpu(), tensor, msg=lambda told, part=part: f"{part}: {told}")
        np.testing.assert_array_equal(found.items.codes, expected.items.codes)
        assert found.manifest.metrics == expected.manifest.metrics
    if build_network is Network:
        save(found, Path(folder) / "bundle")
        assert load(Path(folder) / "bundle").generation == found.generation


STAY = (a_tensor_of_the_cpu_is_refused, codes_tables_and_the_best_stay, a_search_of_histories_stays, a_scan_moves_queries_and_what_it_found)


@pytest.mark.parametrize("check", STAY, ids=lambda check: check.__name__)
def test_on_a_device_of_its_own(check):
    in_its_own_process(check)


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("name", TRAININGS)
def test_training_and_serving_give_there_what_they_give_on_the_cpu(name, tmp_path):
    in_its_own_process(training_and_serving_agree, name, tmp_path)
