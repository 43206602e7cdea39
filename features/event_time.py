"""The rules of event time.

- Future: a time stamp more than `max_future_ms` ahead of the clock is refused; it would remain the newest for too long.
- Late: an event older than the events a row keeps is added to the row's fold; nothing is dropped silently.
- Beyond retention: an event older than `retention_ms` becomes a dead letter.
- Duplicate: the same content under the same event id and time stamp is one event (features.rows).
- Pairs: a query explains its user's events in the next `PAIR_WINDOW_MS`, and events of any time that name it (features.rows.pair).
  Order of arrival does not matter while the clocks of the two differ by at most `PAIR_SKEW_MS`.
"""

from typing import NamedTuple

MINUTE_MS = 60_000
DAY_MS = 86_400_000
PAIR_WINDOW_MS = 30 * MINUTE_MS
PAIR_SKEW_MS = 30 * MINUTE_MS


class TimeRules(NamedTuple):
    """Which time stamps are accepted. Both limits are relative to the clock that the caller passes."""

    max_future_ms: int = 10 * MINUTE_MS
    retention_ms: int = 20 * 365 * DAY_MS

    def refuse(self, ts: int, now_ms: int) -> tuple[str, str] | None:
        """None if `ts` is accepted, else (reason, sentence); the reasons are values of `features.events.Reason`."""
        if ts > now_ms + self.max_future_ms:
            return "future", f"time stamp {ts} is {ts - now_ms} ms ahead of the clock, more than {self.max_future_ms}"
        if ts < now_ms - self.retention_ms:
            return "beyond_retention", f"time stamp {ts} is older than the retention of {self.retention_ms // DAY_MS} days"
        return None
