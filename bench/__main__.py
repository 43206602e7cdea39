"""`python -m bench [ingest] [latency] [memory]`: run the benchmarks (all, if none is named) and write their tables."""

import argparse
import sys
import tempfile
from pathlib import Path

from bench import ingest, latency, memory, parts, table
from infra.local.processes import stop_on_signals

BENCHMARKS = {"ingest": ingest.measure, "latency": latency.measure, "memory": memory.measure}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="ingest, latency, memory; none: all")
    parser.add_argument("--data", type=Path, default=parts.TAOBAO, help="file of events; where it is missing, the simulated shop")
    parser.add_argument("--events", type=int, default=0, help="only the first so many events; 0: all")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each quick way")
    parser.add_argument("--plain-events", type=int, default=3000, help="events that the slow way is measured on")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each rate of the latency benchmark lasts")
    parser.add_argument("--kafka", type=Path, help="measure ingest on a real Apache Kafka too: its start script, as ../shared/kafka/kafka")
    parser.add_argument("--table", type=Path, default=table.PAGE, help="the page to write")
    options = parser.parse_args()
    chosen = options.names or list(BENCHMARKS)
    if unknown := set(chosen) - BENCHMARKS.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    with stop_on_signals(), tempfile.TemporaryDirectory(prefix="everlong-bench-") as folder:
        for name in chosen:
            section = BENCHMARKS[name](options, Path(folder))
            table.write(options.table, name, section)
            print(f"\n{section}\nwritten to {options.table}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
