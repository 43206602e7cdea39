"""Events per second of one ingest worker on a backlog, compared with a plain agent (a) and the ceiling of I/O (b).

All three read the same log from its beginning into the same, emptied Valkey, in turns, and are timed from the end of their first
write to the end of their last. Processes are warm: what comes before the first write is not counted.
"""

import argparse
import asyncio
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import psutil
import redis

from bench import parts, raw_pipeline, table
from bench.parts import Way
from infra.local import embedded
from infra.local.processes import Supervisor, everlong
from infra.scraping import scrape
from infra.settings import Settings, child_environment

LIMIT_S = 240.0
POLL_S = 0.1
OURS = "one ingest worker"
PLAIN = "(a) per-event Faust agent, `write_to_online_store`"
RAW = "(b) aiokafka + redis-py, precomputed rows"


class Look(NamedTuple):
    """A worker seen from outside: when (monotonic seconds), its CPU seconds, and the events that it has taken."""

    at_s: float
    cpu_s: float
    taken: int


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    data = parts.load_data(options.data, options.events)
    brokers = {"embedded broker (noida-db)": None} | ({"Apache Kafka": options.kafka} if options.kafka else {})
    load = [table.load()]
    measured = {name: _measure(options, data, folder / f"ingest-{n}", script) for n, (name, script) in enumerate(brokers.items())}
    load.append(table.load())
    tables = [line for name, ways in measured.items() for line in _table(name, ways)]
    return "\n".join([*_head(data, options), "", *tables, table.stamp(load)])


def _measure(options: argparse.Namespace, data: parts.Data, folder: Path, script: Path | None) -> dict[str, list[Way]]:
    ways: dict[str, list[Way]] = {OURS: [], RAW: [], PLAIN: []}
    with parts.empty_system(folder, script) as (supervisor, settings):
        asyncio.run(parts.publish(settings, data.events))
        batches = asyncio.run(raw_pipeline.prepare(settings.kafka_bootstrap or "", settings.partitions))
        (folder / "batches").write_bytes(msgspec.msgpack.encode(batches))
        del batches
        plain_events = str(min(options.plain_events, len(data.events)))
        for turn in range(options.repeat):
            _empty(settings)
            _note(ways, OURS, _ours(supervisor, settings, f"ours-{turn}", len(data.events)))
            _empty(settings)
            _note(ways, RAW, _child(supervisor, settings, "raw_pipeline", turn, "--batches", str(folder / "batches")))
            if turn < max(1, options.repeat - 1):
                _empty(settings)
                _note(ways, PLAIN, _child(supervisor, settings, "plain_faust", turn, "--events", plain_events))
    return ways


def _empty(settings: Settings) -> None:
    with redis.Redis.from_url(parts.url_of(settings)) as client:
        client.flushall()


def _note(ways: dict[str, list[Way]], name: str, found: Way) -> None:
    ways[name].append(found)
    figures = f"{found.events:,} events in {found.seconds:.2f} s ({found.cpu_s:.2f} s CPU), {found.rate:,.0f}/s, {found.rows:,} rows"
    print(f"{name}: {figures}; load {table.load()}", flush=True)


def _child(supervisor: Supervisor, settings: Settings, module: str, turn: int, *arguments: str) -> Way:
    broker = ("--bootstrap", settings.kafka_bootstrap or "", "--store", parts.url_of(settings), "--group", f"{module}-{turn}")
    return parts.run_way(supervisor, f"bench.{module}", [*broker, *arguments], supervisor.log_dir.parent / "out.json", LIMIT_S)


def _ours(supervisor: Supervisor, settings: Settings, group: str, total: int) -> Way:
    """`everlong worker ingest`, watched from outside through its metrics."""
    port = embedded.free_port()
    environment = child_environment(
        kafka_bootstrap=settings.kafka_bootstrap or "",
        store_url=parts.url_of(settings),
        epoch=settings.epoch,
        data_dir=settings.data_dir.resolve(),
        group=group,
        metrics_port=port,
        http_host=embedded.HOST,
    )
    process = psutil.Process(supervisor.start("ingest", everlong("worker", "ingest"), environment).pid)
    looks: list[Look] = []
    end = time.monotonic() + LIMIT_S
    try:
        while not looks or looks[-1].taken < total:
            supervisor.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{looks[-1:]} of {total} events after {LIMIT_S:.0f} s; see {supervisor.log_dir}")
            samples = scrape([port])
            taken = int(samples.total("everlong_events_total") + samples.total("everlong_dead_letters_total"))
            if taken and (not looks or taken != looks[-1].taken):
                looks.append(Look(time.monotonic(), sum(process.cpu_times()[:2]), taken))
            time.sleep(POLL_S)
        rows = int(scrape([port]).total("everlong_rows_written_total"))
    finally:
        supervisor.stop("ingest")
    first, last = looks[0], looks[-1]
    if first.taken == last.taken:
        raise ValueError(f"{total:,} events were taken within {POLL_S:g} s, too few to measure a rate: use more (--events)")
    return Way(events=last.taken - first.taken, seconds=last.at_s - first.at_s, cpu_s=last.cpu_s - first.cpu_s, rows=rows)


def _head(data: parts.Data, options: argparse.Namespace) -> list[str]:
    return [
        "## Ingest: events per second of one worker",
        "",
        f"{len(data.events):,} events of {data.name} wait in the log (4 partitions); rows go to an embedded Valkey without persistence.",
        "Timed from the first write (not counted) to the last; processes are warm; the ways alternate; medians.",
        "CPU is that of the process alone (ms per 1,000 events); unlike the rates it hardly depends on other load.",
        f"(a) is measured on {min(options.plain_events, len(data.events)):,} events, as it is slow, and has an advantage: its rows never",
        "leave memory, are merged by our code and written packed, and it publishes and guards nothing. noida-db answers empty fetches",
        "immediately, which keeps a stock consumer busy and explains part of (a)'s deficit there.",
        "(b) does not decode, merge, guard or publish: it reads the log and stores the bytes that our worker would write,",
        "by pipelined HSET.",
    ]


def _table(broker: str, ways: dict[str, list[Way]]) -> list[str]:
    rate = {name: median(way.rate for way in found) for name, found in ways.items()}
    cpu = {name: median(1e6 * way.cpu_s / way.events for way in found) for name, found in ways.items()}
    rows = [
        (
            name,
            f"{rate[name]:,.0f}",
            f"{min(w.rate for w in found):,.0f} - {max(w.rate for w in found):,.0f}",
            f"{found[0].rows:,}",
            f"{rate[name] / rate[PLAIN]:,.1f}",
            f"{rate[name] / rate[RAW]:.0%}",
            f"{cpu[name]:,.1f}",
            f"{cpu[PLAIN] / cpu[name]:,.1f}",
        )
        for name, found in ways.items()
    ]
    runs = f"lowest - highest of {len(ways[OURS])}, (a) of {len(ways[PLAIN])}"
    heads = (broker, "events/s", runs, "rows written", "times (a)", "share of (b)", "CPU ms / 1,000", "times less CPU than (a)")
    return [*table.markdown(heads, rows), ""]
