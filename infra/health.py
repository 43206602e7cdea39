"""Health of a process: named conditions, each ready, or failed with a reason. The owner of a condition reports it."""

from threading import Lock

NOT_YET = "not yet"


def away(part: str) -> str:
    """The reason of a condition that depends on an unreachable service. It contains no address, since anyone may read it."""
    return f"the {part} does not answer; see the log of this process"


class Health:
    """Conditions that must all hold before the process accepts work. Thread-safe.

    The initial conditions start as failed with the reason `not yet`.
    """

    def __init__(self, *conditions: str) -> None:
        self._lock = Lock()
        self._failed: dict[str, str] = dict.fromkeys(conditions, NOT_YET)
        self._warnings: dict[str, str] = {}

    def set_ready(self, condition: str) -> None:
        """The condition holds."""
        with self._lock:
            self._failed.pop(condition, None)

    def set_failed(self, condition: str, reason: str) -> None:
        """The condition does not hold; the reason is one that a person can act on."""
        with self._lock:
            self._failed[condition] = reason

    def warn(self, condition: str, reason: str | None) -> None:
        """The condition holds, but a person should act on this warning; None removes it."""
        with self._lock:
            self._warnings.pop(condition, None)
            if reason is not None:
                self._warnings[condition] = reason

    def warnings(self) -> dict[str, str]:
        """Warnings of a ready process, by condition."""
        with self._lock:
            return dict(self._warnings)

    @property
    def ready(self) -> bool:
        """Whether every condition holds."""
        return not self._failed

    def reasons(self) -> dict[str, str]:
        """The reasons of the conditions that do not hold, by name; empty if ready."""
        with self._lock:
            return dict(self._failed)
