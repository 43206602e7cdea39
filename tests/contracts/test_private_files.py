"""What the commands of one machine leave on disk and in the list of processes is for the user who runs them only."""

import stat
import subprocess
from pathlib import Path

import pytest
import redis

from features.store.sqlite import SqliteStore
from infra.local import running, system
from infra.local.running import Running
from infra.settings import Settings


def readable_by_others(folder: Path) -> list[str]:
    found = (folder, *folder.rglob("*"))
    return sorted(str(path) for path in found if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077)


@pytest.mark.fault(
    "Another user of the machine who looks for the data, the logs or the store's password",
    "Directories have mode 0700, files have mode 0600, and the embedded Valkey requires a password that appears on no command line",
)
def test_other_users_see_no_data_and_no_password(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True, mode=0o755)
    (data / "logs" / "store.log").touch(0o644)
    (data / "lock").touch(0o600)
    data.chmod(0o755)  # as an earlier run under another umask may have left it
    with system.children(Settings(data_dir=data)) as supervisor:
        settings, _ = system.start_parts(supervisor, Settings(data_dir=data), persist=True)
        assert settings.store_url is not None
        url = settings.store_url.get_secret_value()
        with redis.Redis.from_url(url) as client:
            client.set("user", "row")
            password = client.connection_pool.connection_kwargs["password"]
            port = client.connection_pool.connection_kwargs["port"]
        about = Running(pid=running.own_pid(), began=1, bootstrap=settings.kafka_bootstrap or "", store_url=url, epoch=1, bundle="b")
        running.note(data, about)
        (data / "of-the-parent").touch()
        listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        assert "valkey-server" in listed
        assert password not in listed
        assert password not in repr(settings)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
            stranger.get("user")
        assert readable_by_others(data) == []
    assert readable_by_others(data) == []


def test_a_folder_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").touch(0o644)
    with running.owned(tmp_path):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_sqlite_store_is_for_its_user(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "rows.db")
    assert readable_by_others(tmp_path / "new") == []
    store.close()
