"""Errors of Everlong: their base, and those of rows, files and the store.

    EverlongError
        LayoutError              bytes that cannot be read as a row
            UnreadableRowError   damaged
            OtherLayoutError     written by another version
        SourceError              a file that cannot be read as events or products
        RetryableError           nothing is lost: retry
            StoreUnavailableError

`models.errors`, `stream.errors`, `infra.errors` and `research.errors` add their own.
"""


class EverlongError(Exception):
    """An error that an operator can act on. str() is one sentence: what is wrong, then the remedy.

    Attributes:
        what: what is wrong.
        remedy: what to do about it; empty if `what` says it or nothing can be done.
    """

    remedy = ""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        self.what = what
        if remedy is not None:
            self.remedy = remedy
        super().__init__(what + (("; " if ": " in what else ": ") + self.remedy if self.remedy else ""))


class RetryableError(EverlongError):
    """Nothing is lost, and the operation may not have happened: retry it after `retry_after_s` seconds."""

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class LayoutError(EverlongError):
    """Bytes that cannot be read as a row of the expected kind."""


class UnreadableRowError(LayoutError):
    """Bytes that no version of Everlong writes: the row is damaged."""


class OtherLayoutError(LayoutError):
    """A row that another version of Everlong wrote."""


class SourceError(EverlongError):
    """The file cannot be read as events or products; the message names the file and the remedy."""


class StoreUnavailableError(RetryableError):
    """The store did not answer. A write in progress may have happened: repeat it."""

    remedy = "check EVERLONG_STORE_URL and that the store is up"

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(f"the online store did not answer: {what}", retry_after_s)
