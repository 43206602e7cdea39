"""Limits repeated log lines: an unavailable broker must not fill the disk."""

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass

_NUMBERS = re.compile(r"\d+")
MOST_KINDS = 500


@dataclass
class _Window:
    began: float  # s, as of the record
    seen: int = 1
    left_out: int = 0


class Repeats(logging.Filter):
    """Lets `most` similar lines pass in `every_s` seconds, the first with its traceback; the next one gives the number suppressed.

    Lines are similar if logger, level and message are equal except for arguments and numbers. Memory is bounded.
    """

    def __init__(self, most: int = 5, every_s: float = 60.0) -> None:
        super().__init__()
        self._most, self._every_s = most, every_s
        self._windows: OrderedDict[tuple[str, int, str], _Window] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line; its text may be changed."""
        kind = record.name, record.levelno, _NUMBERS.sub("#", str(record.msg))[:200]
        window = self._windows.get(kind)
        if window is None or record.created - window.began >= self._every_s:
            self._windows[kind] = _Window(record.created)
            self._windows.move_to_end(kind)
            if len(self._windows) > MOST_KINDS:
                self._windows.popitem(last=False)
            if window is not None and window.left_out:
                record.msg, record.args = f"{record.getMessage()} (like {window.left_out} lines before, left out)", ()
            return True
        if window.seen >= self._most:
            window.left_out += 1
            return False
        window.seen += 1
        if record.exc_info:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
            record.exc_info = record.exc_text = None
        return True
