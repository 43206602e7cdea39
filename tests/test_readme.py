"""README and the manual say what is there: commands, settings, paths, links and snippets."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from features.codec import pack
from features.outcomes import Candidate, CandidatesRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from infra.cli import make_app
from infra.local.embedded import start_broker
from infra.local.processes import Supervisor
from infra.settings import FROM_FILE, Settings, secret_settings, variable
from tests.beside import ROOT
from tests.browser.page_world import serving

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
FOLDERS = ("features/", "models/", "stream/", "infra/", "research/", "tests/", "bench/", "docs/", ".ci/")
TEST_SETTING = "EVERLONG_TEST_KAFKA"
COMPOSE_VARIABLES = {"EVERLONG_PORT", "EVERLONG_SECRETS"}
VARIABLES = {*map(variable, Settings.model_fields), *(variable(name) + FROM_FILE for name in secret_settings())}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def shell_lines() -> list[list[str]]:
    lines = [line for page in PAGES for block in blocks(page.read_text(), "bash") for line in block.splitlines()]
    quoted = [span for page in PAGES for span in re.findall(r"`((?:everlong|make) [^`]+)`", page.read_text())]
    return [shlex.split(line, comments=True) for line in [*lines, *quoted] if line.strip()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_make_lists_every_target() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {"setup", "demo", "test", "check", "bench", "chaos", "up", "train", "docs"}
    assert set(re.findall(r"make ([a-z-]+)", printed)) >= targets() >= wanted


def test_make_commands_exist() -> None:
    used = {word for line in shell_lines() if line[0] == "make" for word in line[1:2]}
    assert {"demo", "test"} <= used <= targets()


def walk(command: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what is left of them."""
    while words and hasattr(command, "commands"):
        found = command.commands.get(words[0])
        assert found is not None, f"everlong has no command {words[0]}"
        command, words = found, words[1:]
    return command, words


def everlong_lines() -> Iterator[list[str]]:
    for line in shell_lines():
        if line[0] == "everlong" and not any("|" in word for word in line):
            yield line[1:]


@pytest.mark.parametrize("words", list(everlong_lines()), ids=" ".join)
def test_everlong_commands_exist(words: list[str]) -> None:
    if words[0].startswith("-"):
        return
    command, rest = walk(typer.main.get_command(make_app()), words)
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in rest if word.startswith("-") and word not in options]
    assert not unknown, f"{command.name} has no {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_paths_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target and not target.startswith("#")]
    missing = [link for link in links if not (page.parent / link).exists()]
    named = [span for span in re.findall(r"`([^`\s]+)`", text) if span.startswith(FOLDERS) or span in ("Dockerfile", "Makefile")]
    missing += [span for span in named if not (ROOT / span).exists()]
    assert not missing


def cited(path: Path) -> Iterator[str]:
    """Pages and modules that a file names; what a command writes (`--out page.md`) is none of them."""
    text = re.sub(r"--out \S+", "", path.read_text())
    yield from re.findall(r"(?<![\w./-])[\w./-]+\.md\b", text)
    yield from re.findall(r"(?<![\w./-])(?:features|models|stream|infra|research|bench|docs)/[\w/]+\.(?:py|ya?ml|html|svg)\b", text)


def test_no_file_cites_a_file_that_is_not_in_the_repository() -> None:
    folders = ("features", "models", "stream", "infra", "research", "bench")
    files = [*PAGES, *(path for folder in folders for kind in ("*.py", "*.md", "*.yml") for path in (ROOT / folder).rglob(kind))]
    places = {(path, name) for path in files for name in cited(path)}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in places
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "docs", ROOT / "docs/adr", path.parent))
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_settings_exist(page: Path) -> None:
    known = VARIABLES | {TEST_SETTING} | COMPOSE_VARIABLES
    assert set(re.findall(r"EVERLONG_[A-Z_]*[A-Z]", page.read_text())) <= known


@pytest.mark.parametrize("snippet", blocks(README, "python"))
def test_snippets_run(snippet: str, tmp_path: Path) -> None:
    """Against a served API, an embedded broker, and a store in which u7 has candidates."""
    store = MemoryStore()
    row = CandidatesRow(candidates=[Candidate("i42", 0.9, "shoes", "repeat")], generation="g", event_ts=1, published_ts=2)
    assert store.write([(Key("user_candidates", ("u7",)), Stored(pack(row), LogPosition(), 0))]) == [True]
    with Supervisor(tmp_path / "logs", 5) as supervisor, serving(store, start_broker(supervisor, tmp_path).bootstrap) as address:
        code = snippet.replace("http://127.0.0.1:8080", address)
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "i42 repeat 0.9\n"), done.stderr


def test_compose_sets_only_known_settings() -> None:
    text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"EVERLONG_[A-Z_]*[A-Z]", text)) <= VARIABLES | COMPOSE_VARIABLES


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page.read_text(), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_sections_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text()):
        assert anchor in anchors(page.parent / target if target else page), f"{page}: {target}#{anchor}"


def alerts() -> dict[str, dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "infra/prometheus/rules.yml").read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule for rule in rules}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_describes_itself_and_names_its_runbook(name: str) -> None:
    notes = alerts()[name]["annotations"]
    assert {"summary", "description", "runbook_url"} <= notes.keys()
    page, _, anchor = notes["runbook_url"].partition("#")
    assert anchor == name.lower()
    assert anchor in anchors(ROOT / page)
    for words in re.findall(r"everlong ((?:dlq|codes|topics)(?: [a-z]+)?)", notes["description"]):
        walk(typer.main.get_command(make_app()), words.split())


def test_every_alert_of_the_manual_exists() -> None:
    assert set(re.findall(r"\b(Everlong[A-Z]\w+)", (ROOT / "docs/operation.md").read_text())) == set(alerts())
