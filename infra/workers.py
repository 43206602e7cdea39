"""The three workers: each wires a pipeline of stream/ to its topics, the store, metrics and health."""

from importlib import import_module

from infra.settings import Settings

ROLES = ("catalogue", "ingest", "refresh")


def run_worker(role: str, settings: Settings) -> int:
    """Run a worker in this process until a signal; the exit code. Only the role's own libraries are imported."""
    code: int = import_module(f"stream.workers.{role}").run(settings)
    return code
