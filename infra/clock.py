"""The clock of this process. Pipelines, rows and models take it as a parameter."""

import time


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
