"""Events a second of one ingest worker that works off a backlog, beside the plain way (a) and the ceiling of I/O (b).

All three read the same log from its beginning into the same, emptied Valkey, in turns, and are timed from the end of their first
write to the end of their last. Processes are warm: what comes before the first write is not counted.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
import redis

from bench import parts, raw_pipeline, table
from bench.parts import Way
from infra import embedded
from infra.processes import Supervisor, everlong
from infra.scraping import scrape
from infra.settings import Settings, child_environment

LIMIT_S = 240.0
POLL_S = 0.1
OURS, PLAIN, RAW = "one ingest worker", "(a) per-event Faust agent, `write_to_online_store`", "(b) aiokafka + redis-py, rows computed before"


def measure(options: argparse.Namespace, folder: Path) -> str:
    """The section of the page."""
    data = parts.load_data(options.data, options.events)
    brokers = {"embedded broker (noida-db)": None} | ({"Apache Kafka": options.kafka} if options.kafka else {})
    load = [table.load()]
    measured = {name: _measure(options, data, folder / f"ingest-{n}", script) for n, (name, script) in enumerate(brokers.items())}
    load.append(table.load())
    return "\n".join([*_head(data, options), "", *(line for name, ways in measured.items() for line in _table(name, ways)), table.stamp(load)])


def _measure(options: argparse.Namespace, data: parts.Data, folder: Path, script: Path | None) -> dict[str, list[Way]]:
    ways: dict[str, list[Way]] = {OURS: [], RAW: [], PLAIN: []}
    with parts.empty_system(folder, script) as (supervisor, settings):
        asyncio.run(parts.publish(settings, data.events))
        batches = asyncio.run(raw_pipeline.prepare(settings.kafka_bootstrap or ""))
        (folder / "batches").write_bytes(msgspec.msgpack.encode(batches))
        del batches
        for turn in range(options.repeat):
            _run(ways, OURS, settings, lambda n=turn: _ours(supervisor, settings, f"ours-{n}", len(data.events)))
            _run(ways, RAW, settings, lambda n=turn: _child(supervisor, settings, "raw_pipeline", n, "--batches", str(folder / "batches")))
            if turn < max(1, options.repeat - 1):
                events = str(min(options.plain_events, len(data.events)))
                _run(ways, PLAIN, settings, lambda n=turn, e=events: _child(supervisor, settings, "plain_faust", n, "--events", e))
    return ways


def _run(ways: dict[str, list[Way]], name: str, settings: Settings, way: Callable[[], Way]) -> None:
    with redis.Redis.from_url(parts.url_of(settings)) as client:
        client.flushall()
    found = way()
    ways[name].append(found)
    print(f"{name}: {found.events:,} events in {found.seconds:.2f} s, {found.rate:,.0f}/s, {found.rows:,} rows; load {table.load()}", flush=True)


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
    supervisor.start("ingest", everlong("worker", "ingest"), environment)
    looks: list[tuple[float, int]] = []
    end = time.monotonic() + LIMIT_S
    try:
        while not looks or looks[-1][1] < total:
            supervisor.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{looks[-1:]} of {total} events after {LIMIT_S:.0f} s; see {supervisor.log_dir}")
            samples = scrape([port])
            taken = int(samples.total("everlong_events_total") + samples.total("everlong_dead_letters_total"))
            if taken and (not looks or taken != looks[-1][1]):
                looks.append((time.monotonic(), taken))
            time.sleep(POLL_S)
        rows = int(scrape([port]).total("everlong_rows_written_total"))
    finally:
        supervisor.stop("ingest")
    (first_s, first), (last_s, last) = looks[0], looks[-1]
    return Way(events=last - first, seconds=last_s - first_s, rows=rows)


def _head(data: parts.Data, options: argparse.Namespace) -> list[str]:
    return [
        "## Ingest: events a second of one worker",
        "",
        f"{len(data.events):,} events of {data.name} wait in the log (4 partitions); an embedded Valkey that keeps no file takes the rows.",
        "Timed from the first write, not counted, to the last; processes are warm; the ways take turns; medians.",
        f"(a) is measured on {min(options.plain_events, len(data.events)):,} events because it is slow, and is favoured: its rows never leave",
        "memory, are merged by our code and written packed, and it publishes and guards nothing.",
        "(b) decodes, merges, guards and publishes nothing: it reads the log and stores the bytes that our worker would write, by pipelined HSET.",
    ]


def _table(broker: str, ways: dict[str, list[Way]]) -> list[str]:
    rate = {name: median(way.rate for way in found) for name, found in ways.items()}
    rows = [
        (
            name,
            f"{rate[name]:,.0f}",
            f"{min(w.rate for w in found):,.0f} - {max(w.rate for w in found):,.0f}",
            f"{found[0].rows:,}",
            f"{rate[name] / rate[PLAIN]:.1f} x (a)",
            f"{rate[name] / rate[RAW]:.0%} of (b)",
        )
        for name, found in ways.items()
    ]
    heads = (broker, "events/s", f"lowest - highest of {len(ways[OURS])}, (a) of {len(ways[PLAIN])}", "rows written", "", "")
    return [*table.markdown(heads, rows), ""]
