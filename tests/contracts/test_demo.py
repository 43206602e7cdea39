"""`everlong demo` on the real parts: all is well, nothing stays behind however it ends, and what the manual says of metrics is true."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from infra.local.embedded import free_port
from tests.beside import ROOT
from tests.monitoring import SECTIONS, Live, documented, steps

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RULES, RULES_TEST = ROOT / "infra/prometheus/rules.yml", ROOT / "infra/prometheus/rules.test.yml"
WORKERS = ("ingest", "catalogue", "refresh")
DEMO = [sys.executable, "-m", "infra.cli", "demo", "--seconds", "8", "--rate", "20", "--users", "60"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EVERLONG_")}


def belonging_to(folder: Path) -> list[int]:
    """Processes, other than this one, that were given the folder by their command line or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(str(folder) in text for text in [*process.cmdline(), *process.environ().values()]):
                found.append(process.pid)
    return found


def gone(folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while belonging_to(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Demonstration(NamedTuple):
    """A finished demonstration: what it printed, its exit code, and what each role showed at `/metrics` meanwhile."""

    folder: Path
    output: str
    code: int
    shown: dict[str, str]


def workers(folder: Path) -> dict[str, dict[str, str]]:
    """The environment of each worker that runs with this folder, by role."""
    found = {}
    for pid in belonging_to(folder):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            *_, role = process.cmdline() or [""]
            if role in WORKERS:
                found[role] = process.environ()
    return found


def get(port: int, path: str) -> str:
    """The body that a process answers, empty while it does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def measured(text: str, role: str) -> set[str]:
    """The steps that a worker has measured."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.name == "everlong_step_seconds_count"]
    assert {sample.labels["role"] for sample in samples} <= {role}
    return {sample.labels["step"] for sample in samples if sample.value}


def watch(demo: subprocess.Popen[str], folder: Path) -> dict[str, str]:
    """What each role shows at `/metrics` once every worker has worked; the API is started beside the demonstration."""
    api, port, shown = None, free_port(), dict.fromkeys((*WORKERS, "api"), "")
    try:
        while demo.poll() is None and not all(shown.values()):
            found = workers(folder)
            if api is None and len(found) == len(WORKERS):
                environment = found["ingest"] | {"EVERLONG_HTTP_PORT": str(port)}
                api = subprocess.Popen([sys.executable, "-m", "infra.cli", "api"], env=environment, stderr=subprocess.DEVNULL)
            for role in found:
                text = get(int(found[role]["EVERLONG_METRICS_PORT"]), "/metrics")
                if measured(text, role) >= steps(role):
                    shown[role] = text
            if api is not None and get(port, "/") and get(port, "/v1/users/u0/candidates"):
                shown["api"] = get(port, "/metrics")
            time.sleep(0.2)
        return shown
    finally:
        if api is not None:
            api.terminate()
            api.wait()


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstration]:
    folder = tmp_path_factory.mktemp("demo")
    with subprocess.Popen(
        [*DEMO, "--keep", str(folder)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        try:
            shown = watch(demo, folder)
            output, _ = demo.communicate(timeout=580)
            yield Demonstration(folder, output, demo.returncode, shown)
        finally:
            demo.kill()


@pytest.mark.timeout(600)
def test_demo_ends_well_and_leaves_nothing(demonstration: Demonstration) -> None:
    assert demonstration.code == 0, demonstration.output
    assert "all is well" in demonstration.output
    assert "does not add up" not in demonstration.output
    assert "\x1b" not in demonstration.output
    assert gone(demonstration.folder, 30.0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", SECTIONS)
def test_a_process_shows_the_families_steps_and_label_values_of_its_role(demonstration: Demonstration, role: str) -> None:
    text = demonstration.shown[role]
    assert "_created" not in text
    assert measured(text, role) == steps(role)
    families = {f.name + "_total" if f.type == "counter" else f.name: f for f in text_string_to_metric_families(text)}
    assert families.keys() == documented(role).keys()
    for name, family in documented(role).items():
        for label, listed in family.labels.items():
            shown = {sample.labels[label] for sample in families[name].samples}
            assert not listed or shown <= listed, f"{name} shows {label}={shown - listed}"
            if listed and shown and label not in ("step", "role"):
                assert shown == listed, f"{name} does not show {label}={listed - shown}"


@pytest.mark.timeout(600)
@pytest.mark.fault("An alert rule or page with a metric, label or step that no process exports", "A test fails and reports the name")
def test_the_manual_and_the_alerts_name_what_processes_show(demonstration: Demonstration) -> None:
    live = Live(demonstration.shown)
    wrong = [f"{page.name}: {one}" for page in PAGES for one in live.wrong_names(page.read_text()) + live.wrong_selectors(page.read_text())]
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        wrong += live.wrong_names(rule["expr"]) + live.wrong_selectors(rule["expr"]) + live.wrong_grouping(rule["expr"])
    wrong += live.wrong_names(RULES_TEST.read_text()) + live.wrong_selectors(RULES_TEST.read_text())
    assert wrong == []


@pytest.mark.timeout(600)
def test_a_name_label_or_step_that_nobody_exports_is_found(demonstration: Demonstration) -> None:
    live = Live(demonstration.shown)
    assert live.wrong_selectors('rate(everlong_step_seconds_bucket{role="ingest", step="write", le="0.5"}[5m])') == []
    assert len(live.wrong_selectors('everlong_step_seconds_sum{step="apply"}')) == 1
    assert len(live.wrong_selectors('everlong_step_seconds_sum{role="ingest", step="search"}')) == 1
    assert len(live.wrong_selectors('everlong_retries_total{step="StoreUnavailableError", error="StoreUnavailableError"}')) == 1
    assert len(live.wrong_selectors('everlong_refreshes_total{job="ingest", level="full"}')) == 1
    assert len(live.wrong_selectors('everlong_lag_records{user="u0"}')) == 1
    assert len(live.wrong_selectors('everlong_messages_dropped_total{reason="too_small"}')) == 1
    assert live.wrong_names("everlong_index_items and everlong_index_things") == ["everlong_index_things: no process exports it"]
    assert len(live.wrong_grouping("sum by (job, part) (rate(everlong_retries_total[5m])) > 0")) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind_when_it_is_ended(tmp_path: Path, end: signal.Signals) -> None:
    demo = subprocess.Popen([*DEMO, "--keep", str(tmp_path)], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 240
        while not (tmp_path / "logs" / "refresh.log").exists() and time.monotonic() < limit:
            assert demo.poll() is None
            time.sleep(0.1)
        assert len(belonging_to(tmp_path)) >= 5
        demo.send_signal(end)
        assert demo.wait(60) != 0
        assert gone(tmp_path, 30.0)
    finally:
        demo.kill()
        demo.wait()
