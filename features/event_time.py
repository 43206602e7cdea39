"""The rules of event time, in one place.

- Future: a time stamp further ahead of the clock than `max_future_ms` is refused, or it would stay 'newest' for ever.
- Late: an event older than what a row keeps goes into the row's fold; nothing is forgotten silently.
- Beyond retention: an event older than `retention_ms` is refused, as a dead letter.
- Duplicate: the same content under the same event id and time stamp is one event (features.rows).
- Pairs: a query explains what its user did in the `PAIR_WINDOW_MS` after it, and at any time what names it
  (features.rows.pair). Up to `PAIR_SKEW_MS` between the clocks of the two, order of arrival does not matter.
"""

from typing import NamedTuple

MINUTE_MS = 60_000
DAY_MS = 86_400_000
PAIR_WINDOW_MS = 30 * MINUTE_MS
PAIR_SKEW_MS = 30 * MINUTE_MS


class TimeRules(NamedTuple):
    """Which time stamps are taken. Both limits are relative to the clock that the caller passes."""

    max_future_ms: int = 10 * MINUTE_MS
    retention_ms: int = 20 * 365 * DAY_MS

    def refuse(self, ts: int, now_ms: int) -> tuple[str, str] | None:
        """None where `ts` is taken, else (reason, sentence); the reasons are values of `features.events.Reason`."""
        if ts > now_ms + self.max_future_ms:
            return "future", f"time stamp {ts} is {ts - now_ms} ms ahead of the clock, more than {self.max_future_ms}"
        if ts < now_ms - self.retention_ms:
            return "beyond_retention", f"time stamp {ts} is older than the retention of {self.retention_ms // DAY_MS} days"
        return None
