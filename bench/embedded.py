"""The embedded broker under `everlong up`: its memory and its folder over time, and what their slopes come to in a day."""

import argparse
import csv
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench import table
from infra.errors import ChildFailedError
from infra.local import running
from infra.local.processes import Supervisor, everlong, tail
from infra.settings import child_environment
from infra.training.from_files import ShopPlan, shop_history, train_bundle
from models.config import Config
from stream.kafka.connection import Connection
from stream.kafka.topic_reader import ranges
from stream.kafka.topics import BEHAVIOUR, CANDIDATES

DAY_EVENTS = 10 * 86_400  # at the default rate of `everlong up`
CONFIG = Config().replace(epochs=1, per_user=10)
EVERY_S = 10.0
READY_S = 600.0
PARTS = 3
MB = 1e6
NAMES = {"noida-db": "broker", "valkey-server": "store", "ingest": "ingest", "refresh": "refresh", "catalogue": "catalogue", "api": "api"}


class Sample(NamedTuple):
    """Seconds since the first, resident bytes of each process, bytes in the broker's folder."""

    second: float
    resident: dict[str, int]
    disk: int


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page. The samples are left in `folder`/embedded/samples.csv."""
    loads, place = [table.load()], folder / "embedded"
    train_bundle(shop_history(ShopPlan()), place / "bundle", config=CONFIG, seed=0, device="cpu", tell=lambda done, total: None)
    data = place / "data"
    environment = child_environment(data_dir=data, bundle=place / "bundle", http_port=0, torch_threads=1)
    own = {name: value for name, value in environment.items() if name not in ("EVERLONG_KAFKA_BOOTSTRAP", "EVERLONG_STORE_URL")}
    with Supervisor(place / "logs", stop_deadline_s=60.0) as supervisor:
        child = supervisor.start("up", everlong("up", "--rate", str(options.up_rate)), own)
        end = time.monotonic() + READY_S
        while "the page is at" not in tail(child.log):
            supervisor.check()
            if time.monotonic() > end:
                raise ChildFailedError("up", 0, child.log, tail(child.log))
            time.sleep(0.5)
        found = running.find(data)
        assert found is not None
        before = _ends(found.bootstrap)
        samples = _sample(supervisor, found.pid, data / "broker", options.up_seconds, min(EVERY_S, options.up_seconds / 10))
        _write(place / "samples.csv", samples)
        sent = _ends(found.bootstrap) - before
    loads.append(table.load())
    return "\n".join([*_head(options, sent), "", *_table(samples), "", *_slopes(samples, sent), "", table.stamp(loads)])


def _sample(supervisor: Supervisor, parent: int, disk: Path, seconds: float, every_s: float) -> list[Sample]:
    began, samples = time.monotonic(), []
    while (second := time.monotonic() - began) < seconds or len(samples) < PARTS:
        supervisor.check()
        samples.append(Sample(second, _resident(parent), sum(_size(file) for file in disk.iterdir())))
        time.sleep(max(0.0, began + len(samples) * every_s - time.monotonic()))
    return samples


def _resident(parent: int) -> dict[str, int]:
    """Resident bytes of the children of a process, by what they are."""
    found = {}
    for process in psutil.Process(parent).children():
        with suppress(psutil.Error):
            name = next((NAMES[word] for part in process.cmdline() if (word := Path(part.split(" ")[0]).name) in NAMES), None)
            if name is not None:
                found[name] = process.memory_info().rss
    return found


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):  # the file that is being written takes the name of the one before
        return file.stat().st_size
    return 0


def _ends(bootstrap: str) -> Counter[str]:
    """Records of each topic so far."""
    connection = Connection(bootstrap=bootstrap)
    return Counter({spec.name: sum(end for _, end in ranges(connection, spec.name).values()) for spec in (*BEHAVIOUR, CANDIDATES)})


def _write(file: Path, samples: Sequence[Sample]) -> None:
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["second", "disk", *NAMES.values()])
        lines.writerows([round(s.second, 1), s.disk, *(s.resident.get(name, 0) for name in NAMES.values())] for s in samples)


def _head(options: argparse.Namespace, sent: Counter[str]) -> list[str]:
    events = sum(sent[spec.name] for spec in BEHAVIOUR)
    return [
        "## The embedded broker under `everlong up`",
        "",
        f"`everlong up --rate {options.up_rate:g}` for {options.up_seconds / 60:.0f} minutes after the shop's history was applied:",
        f"{events:,} events and {sent[CANDIDATES.name]:,} candidate sets.",
        "noida-db holds its log in memory and rewrites it as one file; peaks are those of the moments in which it does.",
    ]


def _table(samples: Sequence[Sample]) -> list[str]:
    rows = []
    for part in np.array_split(np.arange(len(samples)), PARTS):
        chosen = [samples[at] for at in part]
        broker, disk = [s.resident.get("broker", 0) / MB for s in chosen], [s.disk / MB for s in chosen]
        last = chosen[-1]
        others = [f"{last.resident.get(name, 0) / MB:.0f}" for name in NAMES.values() if name != "broker"]
        minutes = f"{chosen[0].second / 60:.0f} - {last.second / 60:.0f}"
        rows.append((minutes, f"{np.mean(broker):.0f}", f"{max(broker):.0f}", f"{np.mean(disk):.0f}", f"{max(disk):.0f}", *others))
    others = [f"{name} MB" for name in NAMES.values() if name != "broker"]
    return table.markdown(("minutes", "broker MB: mean", "peak", "folder MB: mean", "peak", *others), rows)


def _slopes(samples: Sequence[Sample], sent: Counter[str]) -> list[str]:
    """What the second half of the run says of a day."""
    half = samples[len(samples) // 2 :]
    seconds = np.array([s.second for s in half])
    per_second = sum(sent[spec.name] for spec in BEHAVIOUR) / max(1.0, samples[-1].second)
    said = []
    for name, values in (("memory", [s.resident.get("broker", 0) for s in half]), ("the folder", [s.disk for s in half])):
        (slope, error), peak = slope_of(seconds, np.array(values) / MB), max(values) / MB
        day = DAY_EVENTS / per_second if per_second else 0.0
        said.append(f"{name} {slope * day:+.0f} ± {error * day:.0f} MB in 24 h, from {peak:.0f} MB")
    return [
        f"Slopes of the second half, with two standard errors; a day at the default rate of 10 events/s has {DAY_EVENTS:,} events:",
        f"{'; '.join(said)}. Saves make the memory jump, so a short run says little of its slope.",
    ]


def slope_of(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Least-squares slope, in units of `values` a second, and two standard errors of it."""
    slope, at = np.polyfit(seconds, values, 1)
    rest = values - slope * seconds - at
    variance = (rest**2).sum() / max(1, len(values) - 2) / ((seconds - seconds.mean()) ** 2).sum()
    return float(slope), float(2 * np.sqrt(variance))
