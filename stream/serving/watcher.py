"""What is told of an index that follows item codes: the one place where metrics hang on to it."""

from collections.abc import Sequence


class Watcher:
    """Told of what an index does; does nothing itself. Called by several threads."""

    def items(self, items: int, newest_ts: int, sent_ms: Sequence[int]) -> None:
        """Codes took their place: items in the index, time (ms) of the newest, and when each that came since the start was sent."""

    def generations(self, serving: str, held: Sequence[str]) -> None:
        """These generations of codes are held now, and this one serves."""

    def others(self, bundles: int, codebooks: int) -> None:
        """So many codes were left out, being of another bundle; so many encoded here, being of a codebook that is not held."""

    def skipped(self, reason: str) -> None:
        """A record of `item-codes` cannot be used, for this reason, and was skipped."""

    def upkeep(self, what: str, seconds: float) -> None:
        """A compaction (`compact`), a snapshot (`save`) or codes of another generation (`hold`) took so long."""
