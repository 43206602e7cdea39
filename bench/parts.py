"""What the benchmarks share: the events, a broker and a store with nothing in them, and children that report when they are done."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from features.events import Event
from features.sources import Reading
from infra.errors import ChildFailedError
from infra.local import embedded, system
from infra.local.feed import Feed
from infra.local.processes import Supervisor, tail
from infra.settings import Settings, load_settings
from infra.training.from_files import ShopPlan, shop_history
from infra.wiring import connection

TAOBAO = Path(__file__).resolve().parents[2] / "shared/data/taobao_users.parquet"
SHOP = ShopPlan(users=800, items=5000, categories=200, days=60.0, seed=7)
POLL_S = 0.05


class Data(NamedTuple):
    """Events ascending by time, and what to call them."""

    events: list[Event]
    name: str


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of one way came to: events, seconds and the CPU seconds of its process, from its first write (not counted) to its last.

    `rows` are those written in all.
    """

    events: int
    seconds: float
    cpu_s: float
    rows: int

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


def load_data(path: Path, limit: int) -> Data:
    """The first `limit` (0: all) events of the file, of the simulated shop where there is no such file."""
    if path.exists():
        events = list(islice(Reading(path).events(), limit or None))
        return Data(events, f"`{path.name}`")
    history = shop_history(SHOP)
    return Data(list(islice(history.events, limit or None)), history.name)


@contextmanager
def empty_system(folder: Path, kafka: Path | None) -> Iterator[tuple[Supervisor, Settings]]:
    """A broker (embedded, or started by the script `kafka`) with our topics, and an embedded Valkey that keeps no file."""
    own = {"kafka_bootstrap": None, "kafka_security_protocol": "PLAINTEXT", "store_url": None, "bundle": None, "topic_prefix": ""}
    settings = load_settings().model_copy(update={**own, "data_dir": folder, "replication": 1, "torch_threads": 1})
    with Supervisor(folder / "logs", stop_deadline_s=5.0) as supervisor, _kafka(kafka, folder / "kafka") as bootstrap:
        settings, _ = system.start_parts(supervisor, settings.model_copy(update={"kafka_bootstrap": bootstrap}), persist=False)
        system.make_topics(settings)
        yield supervisor, settings


async def publish(settings: Settings, events: Sequence[Event]) -> None:
    """All events into their topics."""
    async with Feed(connection(settings), settings.topic_prefix) as feed:
        await feed.send_all(events)


def run_way(supervisor: Supervisor, module: str, arguments: Sequence[str], out: Path, seconds: float) -> Way:
    """Run a module of this package until it has written what it measured to `out`."""
    out.unlink(missing_ok=True)
    child = supervisor.start(module, [sys.executable, "-m", module, *arguments, "--out", str(out)])
    end = time.monotonic() + seconds
    try:
        while not out.exists():
            supervisor.check()
            if time.monotonic() > end:
                raise ChildFailedError(module, 0, child.log, f"nothing measured after {seconds:.0f} s: {tail(child.log)}")
            time.sleep(POLL_S)
        return msgspec.json.decode(out.read_bytes(), type=Way)
    finally:
        supervisor.stop(module)


def report(out: Path, way: Way) -> None:
    """Say what was measured, in one step."""
    new = out.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(way))
    new.replace(out)


def url_of(settings: Settings) -> str:
    """The store's URL."""
    assert settings.store_url is not None
    return settings.store_url.get_secret_value()


@contextmanager
def _kafka(script: Path | None, folder: Path) -> Iterator[str | None]:
    if script is None:
        yield None
        return
    port = embedded.free_port()
    command = [sys.executable, str(script)]
    subprocess.run([*command, "start", "--dir", str(folder), "--port", str(port)], check=True, capture_output=True, timeout=120)
    try:
        yield f"{embedded.HOST}:{port}"
    finally:
        subprocess.run([*command, "stop", "--dir", str(folder)], check=False, capture_output=True, timeout=60)
