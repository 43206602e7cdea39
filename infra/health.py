"""Health of a process: named conditions, each ready or failed with a reason. Whoever owns a condition reports it."""

from threading import Lock

NOT_YET = "not yet"


def away(part: str) -> str:
    """The reason of a condition whose part does not answer. It names no address: everybody may read it."""
    return f"the {part} does not answer; the log of this process says more"


class Health:
    """Conditions that must all hold before the process takes work. Thread-safe.

    The conditions named at the start have failed with the reason `not yet`, so nothing is ready before it says so.
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
        """The condition does not hold, for a reason that a person can act on."""
        with self._lock:
            self._failed[condition] = reason

    def warn(self, condition: str, reason: str | None) -> None:
        """The condition holds, but a person should act on this; None: no longer."""
        with self._lock:
            self._warnings.pop(condition, None)
            if reason is not None:
                self._warnings[condition] = reason

    def warnings(self) -> dict[str, str]:
        """What a person should act on although the process is ready, by condition."""
        with self._lock:
            return dict(self._warnings)

    @property
    def ready(self) -> bool:
        """Whether every condition holds."""
        return not self._failed

    def reasons(self) -> dict[str, str]:
        """The conditions that do not hold, by name, with the reason of each; empty when ready."""
        with self._lock:
            return dict(self._failed)
