"""Reads metrics and readiness of the workers on this machine over HTTP."""

import http.client
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

HOST = "127.0.0.1"
TIMEOUT_S = 2.0


class MetricSample(NamedTuple):
    """One value of a metric, by name and labels."""

    name: str
    labels: Mapping[str, str]
    value: float


class Samples:
    """Metric values of several processes at one moment."""

    def __init__(self, samples: Iterable[MetricSample]) -> None:
        self._samples = list(samples)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of a name with these labels."""
        return sum(s.value for s in self._samples if s.name == name and all(s.labels.get(k) == v for k, v in labels.items()))

    def by(self, label: str, name: str, **labels: str) -> Counter[str]:
        """The sum for each value of a label, without zeros."""
        sums: Counter[str] = Counter()
        for s in self._samples:
            if s.name == name and s.value and all(s.labels.get(k) == v for k, v in labels.items()):
                sums[s.labels.get(label, "")] += int(s.value)
        return sums

    def quantile(self, name: str, q: float) -> float:
        """The upper bound of the bucket of histogram `name` that contains quantile `q`; nan if the histogram is empty."""
        sums: Counter[float] = Counter()
        for s in self._samples:
            if s.name == f"{name}_bucket":
                sums[float(s.labels["le"])] += s.value  # type: ignore[assignment]
        total = sums.get(float("inf"), 0)
        return next((bound for bound, count in sorted(sums.items()) if count >= q * total), float("nan")) if total else float("nan")


def scrape(ports: Iterable[int]) -> Samples:
    """The metrics of the processes on these ports; those that do not answer are skipped."""
    samples: list[MetricSample] = []
    for port in ports:
        status, body = _get(port, "/metrics")
        if status == 200:
            samples += [MetricSample(s.name, s.labels, s.value) for family in text_string_to_metric_families(body) for s in family.samples]
    return Samples(samples)


def ready(port: int) -> str | None:
    """None if the process is ready, else the reason why it is not."""
    status, body = _get(port, "/health/ready")
    return None if status == 200 else body or "it does not answer yet"


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
