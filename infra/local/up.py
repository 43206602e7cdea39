"""`everlong up`: the whole system on this machine until Ctrl-C; its data is kept."""

import asyncio
import socket
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from infra.clock import wall_ms
from infra.errors import PortTakenError
from infra.local import embedded, running, system
from infra.local.feed import Feed
from infra.local.processes import Supervisor, everlong
from infra.local.trimming import Trimmer
from infra.settings import Settings, child_environment
from infra.terminal import progress, say
from infra.training.from_files import FileHistory, ShopPlan, config_of, shop_history, train_bundle
from infra.wiring import choose_device, connection
from models.bundle import MANIFEST

CHECK_EVERY_S = 0.5


def run_up(settings: Settings, rate: float | None, users: int) -> int:
    """Run until a signal, then return 0. `rate`: live events per second of the simulated shop; None: no shop.

    Raises:
        UnprotectedApiError: other machines can reach the page's address, and there are no tokens.
        AlreadyRunningError: another command uses the data directory.
        PortTakenError: the page's port is in use.
        ChildFailedError: the embedded broker ended. Workers that end are restarted.
        LogFullError: the backlog exceeds the embedded broker's memory.
    """
    settings.check_access()
    with system.children(settings) as supervisor:
        try:
            with suppress(KeyboardInterrupt):
                trimmer = _start(supervisor, settings, _page_port(settings), rate, users)
                while True:
                    supervisor.check()
                    if trimmer is not None:
                        trimmer.check()
                    time.sleep(CHECK_EVERY_S)
            say("stopping")
        finally:
            running.forget(settings.data_dir)
    return 0


def _start(supervisor: Supervisor, settings: Settings, port: int, rate: float | None, users: int) -> Trimmer | None:
    own_broker = settings.kafka_bootstrap is None
    settings, fresh = system.start_parts(supervisor, settings, persist=True)
    system.make_topics(settings)
    trimmer = system.keep_small(supervisor, settings)
    system.apply_features(settings)
    plan, first = _shop_plan(settings.data_dir, users)
    history: FileHistory | None = None
    if rate is not None and (first or fresh or not (settings.bundle_path / MANIFEST).exists()):
        history = shop_history(plan)
    if not (settings.bundle_path / MANIFEST).exists():
        history = history or shop_history(plan)
        say(f"there is no bundle in {settings.bundle_path}: training one on the simulated shop's history")
        with progress("training") as tell:
            train_bundle(history, settings.bundle_path, config=config_of(), seed=plan.seed, device=choose_device(settings), tell=tell)
    ports = system.start_workers(supervisor, settings, restart=True)
    system.start_role(supervisor, "api", settings, restart=True, port=port)
    system.wait_ready(supervisor, ports | {"api": port}, lambda role: say(f"{role} is ready"))
    url = f"http://{settings.http_host}:{port}"
    _note(settings, url, ports, own_broker)
    if rate is not None:
        if history is not None:
            asyncio.run(_send(settings, history, first, own_broker))
            (settings.data_dir / "shop.json").write_bytes(msgspec.json.encode(plan))
        _start_shop(supervisor, settings, plan, rate)
    say(f"the page is at {url}, the logs are in {supervisor.log_dir}; Ctrl-C stops everything and keeps the data")
    return trimmer


async def _send(settings: Settings, history: FileHistory, whole: bool, own_broker: bool) -> None:
    """Send the catalogue and, the first time, the history; the broker's log may be new although the store has rows."""
    async with Feed(connection(settings), settings.topic_prefix, room=system.room(settings, own_broker)) as feed:
        with progress("catalogue and history" if whole else "catalogue") as tell:
            await feed.send_all([*history.items, *(history.events if whole else ())], tell)


def _start_shop(supervisor: Supervisor, settings: Settings, plan: ShopPlan, rate: float) -> None:
    assert settings.kafka_bootstrap is not None
    sizes = ["--users", plan.users, "--items", plan.items, "--categories", plan.categories, "--days", plan.days, "--seed", plan.seed]
    live = ["--rate", rate, "--seconds", 0, "--until", plan.end_ms, "--live-only"]
    environment = child_environment(kafka_bootstrap=settings.kafka_bootstrap, topic_prefix=settings.topic_prefix)
    supervisor.start("shop", everlong("shop", *map(str, (*sizes, *live))), environment, restart=True)


def _shop_plan(data_dir: Path, users: int) -> tuple[ShopPlan, bool]:
    """The shop of this data directory, and whether its history must still be sent."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((data_dir / "shop.json").read_bytes(), type=ShopPlan), False
    return ShopPlan(users=users, end_ms=wall_ms()), True


def _note(settings: Settings, url: str, ports: dict[str, int], own_broker: bool) -> None:
    assert settings.kafka_bootstrap is not None
    assert settings.store_url is not None
    running.note(
        settings.data_dir,
        running.Running(
            pid=running.own_pid(),
            began=running.began(),
            bootstrap=settings.kafka_bootstrap,
            store_url=settings.store_url.get_secret_value(),
            epoch=settings.epoch,
            bundle=str(settings.bundle_path.resolve()),
            api_url=url,
            metrics_ports=ports,
            own_broker=own_broker,
        ),
    )


def _page_port(settings: Settings) -> int:
    if settings.http_port == 0:
        return embedded.free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http_host, settings.http_port))
        except OSError as error:
            address = f"{settings.http_host}:{settings.http_port}"
            raise PortTakenError(
                f"{address} cannot be listened on ({error.strerror})", "set EVERLONG_HTTP_PORT to another port, or 0"
            ) from error
    return settings.http_port
