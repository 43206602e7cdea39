"""Rows split by time into chunks: in memory if they are few, else in a temporary folder, so that a file is read once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from features.event_time import MINUTE_MS

CHUNK_ROWS = 1_000_000
_HOUR_MS = 60 * MINUTE_MS


class Spool:
    """Batches with a column `ts` (ms), split by time into chunks of about `chunk_rows` rows, never within an hour.

    Chunks ascend by time, are sorted once by `in_order`, and can be iterated repeatedly. The temporary folder takes up to twice the
    size of the rows; it is removed by `close`, or with the last reference.
    """

    def __init__(self, batches: Iterable[pa.Table], in_order: Callable[[pa.Table], pa.Table], chunk_rows: int = CHUNK_ROWS) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._paths: list[Path] = []
        self._kept: list[pa.Table] = []
        hours: Counter[int] = Counter()
        with ExitStack() as stack:
            writer: pa.RecordBatchStreamWriter | None = None
            for batch in batches:
                for found in pc.value_counts(pc.divide(batch["ts"], _HOUR_MS)).to_pylist():
                    hours[found["values"]] += found["counts"]
                self._kept.append(batch)
                if hours.total() > chunk_rows:
                    if writer is None:
                        self._folder = TemporaryDirectory(prefix="everlong-")
                        writer = stack.enter_context(pa.ipc.new_stream(self._folder.name + "/all.arrow", batch.schema))
                    for kept in self._kept:
                        writer.write_table(kept)
                    self._kept.clear()
        self.rows = hours.total()
        if self._folder is not None:
            self._split(Path(self._folder.name), list(_starts(hours, chunk_rows)))
            for path in self._paths:
                _write(path, in_order(_read(path)))
        elif self._kept:
            self._kept = [in_order(pa.concat_tables(self._kept).combine_chunks())]

    def __iter__(self) -> Iterator[pa.Table]:
        if self._folder is None:
            yield from self._kept
        for path in self._paths:
            yield _read(path)

    def close(self) -> None:
        """Remove the temporary folder and with it all chunks."""
        self._kept, self._paths = [], []
        if self._folder is not None:
            self._folder.cleanup()

    def _split(self, folder: Path, starts: list[int]) -> None:
        """Split the spooled rows into one file per range of hours. A range ends where the next one starts."""
        edges = np.array(starts[1:], np.int64) * _HOUR_MS
        self._paths = [folder / f"{number}.arrow" for number in range(len(starts))]
        with pa.OSFile(str(folder / "all.arrow")) as file, ExitStack() as stack:
            writers: dict[int, pa.RecordBatchStreamWriter] = {}
            for batch in pa.ipc.open_stream(file):
                ranges = np.searchsorted(edges, batch["ts"].to_numpy(), side="right")
                for number in np.unique(ranges).tolist():
                    if number not in writers:
                        writers[number] = stack.enter_context(pa.ipc.new_stream(str(self._paths[number]), batch.schema))
                    writers[number].write_batch(batch.filter(pa.array(ranges == number)))
        (folder / "all.arrow").unlink()


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def _write(path: Path, chunk: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), chunk.schema) as writer:
        writer.write_table(chunk)


def _starts(hours: Counter[int], chunk_rows: int) -> Iterator[int]:
    """First hours of ranges with at most `chunk_rows` rows each, or of a single hour."""
    held = chunk_rows
    for hour in sorted(hours):
        held += hours[hour]
        if held > chunk_rows:
            yield hour
            held = hours[hour]
