"""`make fuzz`: the targets for a given time, with new inputs each round, and guided by coverage where atheris is installed.

The first failure ends it with a non-zero code; what pytest or atheris printed names the input, and the seed that gives it again.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz until the time is up; the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    guided = find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed, so nothing is guided by coverage: pip install 'everlong[fuzz]'", flush=True)
    end, code = time.monotonic() + 60 * minutes, 0
    while not code and time.monotonic() < end:
        code = _round(random.SystemRandom().randrange(2**32))
        if guided and not code and (left_s := end - time.monotonic()) > 0:
            code = _guided(max(1, int(min(60.0, left_s / len(TARGETS)))), end)
    return code


def _round(seed: int) -> int:
    """All targets by hypothesis."""
    environment = os.environ | {"EVERLONG_FUZZ": "long"}
    arguments = ["-q", "--no-header", "--timeout=1800", f"--hypothesis-seed={seed}", "tests/fuzz/test_targets.py"]
    print(f"hypothesis, seed {seed}", flush=True)
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], env=environment, check=False).returncode


def _guided(seconds: int, end: float) -> int:
    """Each target for some seconds by atheris, from its good inputs."""
    for number, target in enumerate(TARGETS):
        if time.monotonic() >= end:
            return 0
        print(f"atheris, {target.name}, {seconds} s", flush=True)
        with tempfile.TemporaryDirectory() as corpus:
            for at, seed in enumerate(target.seeds):
                with open(os.path.join(corpus, str(at)), "wb") as file:
                    file.write(seed)
            command = [sys.executable, "-m", "tests.fuzz.guided", str(number), corpus, f"-max_total_time={seconds}", "-verbosity=0"]
            if code := subprocess.run(command, check=False).returncode:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
