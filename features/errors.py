"""Errors of Everlong: their base, and those of rows, files and the store.

    EverlongError
        LayoutError              bytes that cannot be read as a row
            UnreadableRowError   damaged
            OtherLayoutError     written by another version
        SourceError              a file that cannot be read as events or products
        RetryableError           nothing is lost: do the same again
            StoreUnavailableError

`models.errors`, `stream.errors`, `infra.errors` and `research.errors` add those of their package.
"""


class EverlongError(Exception):
    """Something that the person who runs Everlong can act on. str() is one sentence: what is wrong, then the remedy.

    Attributes:
        what: what is wrong.
        remedy: what to do about it; empty where `what` says it or where nothing can be done.
    """

    remedy = ""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        self.what = what
        if remedy is not None:
            self.remedy = remedy
        super().__init__(what + (("; " if ": " in what else ": ") + self.remedy if self.remedy else ""))


class RetryableError(EverlongError):
    """Nothing is lost and nothing is known to have happened: do the same again, after `retry_after_s` seconds."""

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class LayoutError(EverlongError):
    """Bytes that cannot be read as a row of the kind."""


class UnreadableRowError(LayoutError):
    """Bytes that no version of Everlong writes as a row of the kind: the row was damaged."""


class OtherLayoutError(LayoutError):
    """A row that another version of Everlong wrote."""


class SourceError(EverlongError):
    """The file cannot be read as events or products; the message names the file and the remedy."""


class StoreUnavailableError(RetryableError):
    """The store did not answer. A write that was under way may have happened: send it again."""

    remedy = "check EVERLONG_STORE_URL and that the store is up"

    def __init__(self, what: str, retry_after_s: float = 0.5) -> None:
        super().__init__(f"the online store did not answer: {what}", retry_after_s)
