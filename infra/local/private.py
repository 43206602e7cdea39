"""Folders and files that only the user who runs Everlong may read: they contain events, rows, logs and passwords."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UMASK = 0o077
FOLDER, FILE = 0o700, 0o600


@contextmanager
def private_files() -> Iterator[None]:
    """Within the context, files created by this process and its children are readable by this user only."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def private_folder(path: Path) -> Path:
    """Create a private folder, or make an existing one private."""
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    if path.stat().st_uid == os.getuid() and stat.S_IMODE(path.stat().st_mode) != FOLDER:
        path.chmod(FOLDER)
    return path


def private_file(path: Path) -> Path:
    """Create an empty private file, or make an existing one private, before a secret is written to it."""
    path.touch(FILE)
    path.chmod(FILE)
    return path
