"""One target under atheris: `python -m tests.fuzz.guided NUMBER CORPUS [options of libFuzzer]`, until it fails or its time is up."""

import sys

import atheris

with atheris.instrument_imports(include=["features", "stream", "infra", "msgspec"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target; does not return."""
    program, number, *options = sys.argv
    target = TARGETS[int(number)]
    atheris.Setup([program, *options], lambda data: target.check(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
