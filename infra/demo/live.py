"""The live part of the demo: a steady stream of events, the figures, and one click that is followed."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from features.events import Click, Event, Item, Topic, encode, key_of
from features.outcomes import CandidatesRow
from features.store.reader import FeatureReader
from infra.clock import wall_ms
from infra.demo.latency import Latency
from infra.demo.table import LiveTable, Picture, Shown
from infra.local.accounts import Accounts
from infra.local.feed import Feed
from infra.local.processes import Supervisor
from stream.kafka.producer import Outgoing
from stream.pipelines.replay import record

CLICK_AFTER = 0.3  # share of the live seconds
TWICE = 50  # every n-th event is sent twice, as by a producer that missed an acknowledgement
LOOK_EVERY_S = 0.5
SHOWN = 8
SEARCHED = 60  # the number of best candidates that must not contain the click's category
BROKEN = ((Topic.CLICKS, b'{"event_id": "1", '), (Topic.QUERIES, b'{"event_id": 1}'), (Topic.ORDERS, b"\xff\xfe"))


class Followed(NamedTuple):
    """A followed click: its user and item, the best candidates before and after, and the number of new candidates."""

    user: str
    title: str
    category: str
    before: list[Shown]
    after: list[Shown]
    new: int
    answered_ms: int

    @property
    def sentence(self) -> str:
        """A sentence on the click."""
        return f"a click on {self.title} ({self.category})"

    @property
    def changed(self) -> bool:
        """Whether the click led to new candidates."""
        return self.new > 0


class LiveStream:
    """Streams `events` (ascending by time, at wall-clock pace) and shows the figures."""

    def __init__(
        self, supervisor: Supervisor, accounts: Accounts, feed: Feed, reader: FeatureReader, latency: Latency, prefix: str = ""
    ) -> None:
        self._supervisor, self._accounts, self._feed = supervisor, accounts, feed
        self._reader, self._latency, self._prefix = reader, latency, prefix
        self._began = time.monotonic()
        self._rows_before = 0.0
        self._levels_before: Counter[str] = Counter()
        self.events: list[Event] = []
        self.followed: Followed | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stream began."""
        return time.monotonic() - self._began

    async def run(self, events: Iterator[Event], seconds: float, user: str, past: Sequence[Event], view: LiveTable) -> None:
        """Stream for this many seconds. A click of `user`, whose other events are left out, is followed."""
        before = (await asyncio.to_thread(self._accounts.look)).samples
        self._rows_before = before.total("everlong_rows_written_total")
        self._levels_before = before.by("level", "everlong_refreshes_total")
        self._began = time.monotonic()
        others = (event for event in events if isinstance(event, Item) or event.user_id != user)
        until_ms = wall_ms() + int(seconds * 1000)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.send_live(others, until_ms, self._sent))
            group.create_task(self._disturb(seconds))
            group.create_task(self._follow(user, past, seconds))
            group.create_task(self._show(seconds, view))

    def _sent(self, events: Sequence[Event], sent_ms: int) -> None:
        self.events += events
        self._latency.sent(events, sent_ms)

    async def _disturb(self, seconds: float) -> None:
        """Add realistic faults: invalid events, which become dead letters, and duplicates, which are dropped."""
        await asyncio.sleep(seconds / 2)
        again = [event for event in self.events[::TWICE] if not isinstance(event, Item)]
        await self._feed.send(again)
        await self._feed.publish(broken(wall_ms(), self._prefix))

    async def _follow(self, user: str, past: Sequence[Event], seconds: float) -> None:
        await asyncio.sleep(seconds * CLICK_AFTER)
        row = await asyncio.to_thread(self._reader.candidates, user)
        if row is None or (item := await asyncio.to_thread(self._unexpected, row, user, past)) is None:
            return
        item_id, category, title = item
        now_ms = wall_ms()
        event = Click(event_id=f"demo-{now_ms}", user_id=user, item_id=item_id, category_id=category, ts=now_ms)
        self._sent([event], await self._feed.send([event]))
        while (after := await asyncio.to_thread(self._reader.candidates, user)) is None or after.event_ts < now_ms:
            await asyncio.sleep(0.05)
        old = {candidate.item for candidate in row.candidates}
        new = sum(candidate.item not in old for candidate in after.candidates)
        first, second = [await asyncio.to_thread(self._shown, found, old, category) for found in (row, after)]
        self.followed = Followed(user, title, category, first, second, new, after.published_ts - now_ms)

    def _unexpected(self, row: CandidatesRow, user: str, past: Sequence[Event]) -> tuple[str, str, str] | None:
        """An item of a category that is not among the user's best candidates: (id, category, title)."""
        expected = {candidate.category for candidate in row.candidates[:SEARCHED]}
        clicks = [event for event in past if isinstance(event, Click)]
        own = {event.category_id for event in clicks if event.user_id == user}
        popular = Counter((event.item_id, event.category_id) for event in clicks if event.category_id not in expected).most_common()
        popular.sort(key=lambda found: found[0][1] in own)  # preferably a category that is new to this user
        if not popular:
            return None
        (item_id, category), _ = popular[0]
        item = self._reader.item([item_id])[0]
        return item_id, category, item.title if item is not None else item_id

    def _shown(self, row: CandidatesRow, old: set[str], category: str) -> list[Shown]:
        """The best candidates, and at the end the best one of the clicked category if it is further down."""
        best = row.candidates[:SHOWN]
        if all(candidate.category != category for candidate in best):
            best = [*best, *[candidate for candidate in row.candidates if candidate.category == category][:1]]
        items = self._reader.item([candidate.item for candidate in best])
        return [
            Shown(c.item, item.title if item is not None else "", c.category, c.path, c.item not in old)
            for c, item in zip(best, items, strict=True)
        ]

    async def _show(self, seconds: float, view: LiveTable) -> None:
        while self.elapsed_s < seconds:
            self._supervisor.check()
            view.show(await self.picture(seconds))
            await asyncio.sleep(LOOK_EVERY_S)

    async def picture(self, seconds: float) -> Picture:
        """The current figures."""
        standing = await asyncio.to_thread(self._accounts.look)
        samples, elapsed = standing.samples, self.elapsed_s
        levels = samples.by("level", "everlong_refreshes_total") - self._levels_before
        followed = self.followed
        return Picture(
            elapsed_s=elapsed,
            seconds=seconds,
            events_per_s=len(self.events) / max(elapsed, 0.001),
            sent=len(self.events),
            lag=max(0, standing.lag),
            p50_ms=self._latency.quantile_ms(0.5),
            p99_ms=self._latency.quantile_ms(0.99),
            rows=int(samples.total("everlong_rows_written_total") - self._rows_before),
            levels=sorted(levels.items()),
            dead=standing.dead,
            user=followed.user if followed else "",
            click=followed.sentence if followed else "",
            before=followed.before if followed else (),
            after=followed.after if followed else (),
        )


def broken(now_ms: int, prefix: str = "") -> list[Outgoing]:
    """Invalid records: truncated, of the wrong types, not UTF-8, and one with a clock that is a day ahead."""
    future = Click(event_id="ahead", user_id="u0", item_id="i0", category_id="c", ts=now_ms + 86_400_000)
    template = record(future, now_ms, prefix)
    bad = [Outgoing(prefix + topic, b"u0", value, now_ms, template[4]) for topic, value in BROKEN]
    return [*bad, Outgoing(template[0], key_of(future), encode(future), now_ms, template[4])]
