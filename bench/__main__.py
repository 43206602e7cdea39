"""`python -m bench [ingest] [latency] [memory] [index] ...`: run the benchmarks (all, if none is named) and write their tables."""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bench import embedded, encoders, index, ingest, latency, lifelong, memory, parts, refresh, table, updates
from infra.local.processes import stop_on_signals

BENCHMARKS = {
    "ingest": ingest.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "embedded": embedded.measure,
    "index": index.measure,
    "updates": updates.measure,
    "refresh": refresh.measure,
    "lifelong": lifelong.measure,
    "encoders": encoders.measure,
}
ONE_CORE = {"index", "updates", "refresh", "lifelong", "encoders"}  # each in a process whose libraries were told so before they were loaded
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"{', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--data", type=Path, default=parts.TAOBAO, help="file of events; where it is missing, the simulated shop")
    parser.add_argument("--events", type=int, default=0, help="only the first so many events; 0: all")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each quick way")
    parser.add_argument("--plain-events", type=int, default=3000, help="events that the slow way is measured on")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each rate of the latency benchmark lasts")
    parser.add_argument("--kafka", type=Path, help="measure ingest on a real Apache Kafka too: its start script, as ../shared/kafka/kafka")
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the index, updates, refresh and lifelong benchmarks")
    parser.add_argument("--update-seconds", type=float, default=60.0, help="how long items change in the updates benchmark")
    parser.add_argument("--up-rate", type=float, default=100.0, help="events a second of the embedded benchmark")
    parser.add_argument("--up-seconds", type=float, default=900.0, help="how long the embedded benchmark lasts")
    parser.add_argument("--table", type=Path, default=table.PAGE, help="the page to write")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    options = parser.parse_args()
    chosen = options.names or list(BENCHMARKS)
    if unknown := set(chosen) - BENCHMARKS.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    with stop_on_signals(), _folder(options.folder) as folder:
        for name in chosen:
            if name in ONE_CORE and not THREADS.items() <= os.environ.items():
                others = [argument for argument in sys.argv[1:] if argument not in BENCHMARKS]
                command = [
                    sys.executable,
                    *(f"-W{option}" for option in sys.warnoptions),
                    "-m",
                    "bench",
                    name,
                    *others,
                    "--folder",
                    str(folder),
                ]
                subprocess.run(command, env={**os.environ, **THREADS}, check=True)
                continue
            section = BENCHMARKS[name](options, Path(folder))
            table.write(options.table, name, section)
            print(f"\n{section}\nwritten to {options.table}", flush=True)
    return 0


def _folder(given: Path | None) -> AbstractContextManager[str | Path]:
    return nullcontext(given) if given else tempfile.TemporaryDirectory(prefix="everlong-bench-")


if __name__ == "__main__":
    sys.exit(main())
