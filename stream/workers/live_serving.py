"""What a refresh worker serves with: the newest bundle, and an index that follows every item code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from models.serving.retriever import Options
from stream.codes.readers import CodebookReader
from stream.kafka.messages import RefreshRequest, Skips
from stream.kafka.topics import CODEBOOKS, ITEM_CODES
from stream.pipelines.batch import Steps
from stream.pipelines.refresh import Refresh, RefreshOutcome
from stream.serving.bundle_swapper import BundleSwapper
from stream.serving.live_index import IndexObserver, LiveIndex
from stream.serving.snapshot import Snapshots
from stream.workers.bundle_follower import BundleFollower, BundleObserver
from stream.workers.context import WorkerContext


class ServingObserver(BundleObserver, IndexObserver, Protocol):
    """The events of a worker that serves a bundle with its index."""

    def index_ready(self) -> None:
        """The index holds what the topic of item codes held."""

    def index(self, memory_bytes: float, changes: int, unfinished_codebooks: int) -> None:
        """The memory of the index, its items changed since the last compaction, and codebooks whose codes are not all published."""


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`data_dir` keeps snapshots of the index, made every `snapshot_s`; `epoch` is that of the topics."""

    bundle: Path
    bundle_poll_s: float
    device: str
    data_dir: Path
    epoch: int
    snapshot_s: float
    retrieval: Options


class ServedBundle:
    """Runs the refresh pipeline with the newest bundle and its index. A context: making it connects to nothing, entering it does."""

    def __init__(self, context: WorkerContext, observer: ServingObserver, options: ServingOptions, clock_ms: Callable[[], int]) -> None:
        self._context, self._observer, self._options = context, observer, options
        self._codebooks = CodebookReader(context.connection, context.topic(CODEBOOKS), Skips(observer.skipped))
        self._snapshots = Snapshots(options.data_dir, context.topic(ITEM_CODES), options.epoch, options.snapshot_s)
        swapper = BundleSwapper(options.bundle, self._load, lambda old: old.stop(save=False))
        self._bundles = BundleFollower(swapper, observer, options.bundle_poll_s)
        self._refresh = Refresh(context.store, clock_ms, options.retrieval)

    def __enter__(self) -> "ServedBundle":
        """Wait for a bundle and read the topic of item codes; both are followed from then on."""
        self._codebooks.start(self._context.stopping)
        try:
            self._bundles.open()
        except BaseException:
            self._codebooks.stop()
            raise
        self._observer.index_ready()
        self._context.every_tick(self._bundles.follow)
        self._context.every_tick(self._check)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop following, and save the index."""
        self._bundles.current.stop()
        self._codebooks.stop()

    def refresh(self, requests: Sequence[RefreshRequest], behind: bool, steps: Steps) -> RefreshOutcome:
        """Run the pipeline. See `stream.pipelines.refresh.Refresh.process`."""
        return self._refresh.process(self._bundles.current.serving, requests, behind, steps)

    def _load(self, directory: Path) -> LiveIndex:
        context, topic, registry = self._context, self._context.topic(ITEM_CODES), self._codebooks.registry
        live = LiveIndex(directory, self._options.device, context.connection, topic, registry, self._observer, self._snapshots)
        live.start(context.stopping)
        self._observer.items(len(live.index), 0, ())
        return live

    async def _check(self, _: Steps) -> None:
        """A job: end the worker when a thread that follows a topic has ended, and show the index."""
        live = self._bundles.current
        if (failure := live.failure or self._codebooks.failure) is not None:
            raise failure
        unfinished = sum(record.ends is None for record in self._codebooks.registry.of(live.bundle))
        self._observer.index(len(live.index) * live.bytes_per_item(), live.index.changes, unfinished)
