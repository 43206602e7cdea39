"""What holds for every file of the tree: size, names, what importing does, and what code may reach for."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.beside import ROOT

PACKAGES = ("features", "models", "stream", "infra", "research")
CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERY = CODE + sorted(path for folder in ("tests", "bench", "examples") for path in (ROOT / folder).rglob("*.py"))
LINES = 350
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
ENVIRONMENT = {("os", "environ"), ("os", "getenv"), ("os", "putenv")}
CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}

# In one process: third parties are loaded first, then each module of ours is imported in a fork that has none of ours yet,
# and whatever starts a thread, opens a connection, listens or runs a program while it is imported is reported.
IMPORTER = """
import importlib, os, sys
for line in sys.argv[1].splitlines():
    try:
        exec(line, {})
    except ImportError:
        pass
FORBIDDEN = {"_thread.start_new_thread", "socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.posix_spawn"}
seen = []
watching = False
def hook(event, args):
    if watching and event in FORBIDDEN:
        seen.append(event)
sys.addaudithook(hook)
failed = 0
for module in sys.argv[2].split(","):
    child = os.fork()
    if child == 0:
        watching = True
        code = 1
        try:
            importlib.import_module(module)
            code = 0
        except BaseException as error:
            print(f"{module}: {type(error).__name__}: {error}", flush=True)
        if seen:
            print(f"{module}: importing it does {sorted(set(seen))}", flush=True)
            code = 1
        os._exit(code)
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(bool(failed))
"""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of the modules that a file imports, type checking aside."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in names}


def foreign_imports(tree: ast.AST) -> set[str]:
    """The import statements of a file, each on one line, that are of other people's packages."""
    found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import)}
    found |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {line for line in found if line.split()[1].split(".")[0] not in PACKAGES}


def reached(path: Path, what: set[tuple[str, str]]) -> list[str]:
    """Places where a file uses one of the attributes, or imports it by name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if (owner, node.attr) in what:
                found.append(f"{relative(path)}:{node.lineno} {owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            found += [f"{relative(path)}:{node.lineno} {node.module}.{n.name}" for n in node.names if (node.module, n.name) in what]
    return found


def test_files_are_small() -> None:
    long = {relative(path): lines for path in EVERY if (lines := len(path.read_text().splitlines())) > LINES}
    assert not long, f"more than {LINES} lines: {long}"


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [relative(path) for path in EVERY if VAGUE & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}]


def test_the_environment_is_read_in_one_file() -> None:
    assert not [place for path in CODE if relative(path) != "infra/settings.py" for place in reached(path, ENVIRONMENT)]


@pytest.mark.parametrize("package", ["features", "models"])
def test_wall_clocks_are_parameters(package: str) -> None:
    assert not [place for path in CODE if relative(path).startswith(package) for place in reached(path, CLOCKS)]


def test_nothing_is_pickled() -> None:
    bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not [(relative(path), names) for path in CODE if (names := imported(ast.parse(path.read_text())) & bad)]


def test_the_tree_names_no_place_of_one_machine() -> None:
    homes = re.compile(r"/(?:work|home|root|Users)/[a-z]")
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".html", ".sh", ".json"}
    skipped = {".venv", ".git", ".everlong", "node_modules", "build", "dist"}
    texts = [path for path in ROOT.rglob("*") if path.suffix in suffixes and not skipped & set(path.relative_to(ROOT).parts)]
    texts += [ROOT / name for name in ("Makefile", "Dockerfile", ".ci/run")]
    found = {relative(path): hit.group() for path in texts if (hit := homes.search(path.read_text(errors="replace")))}
    assert not found


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [name for names in project["optional-dependencies"].values() for name in names]
    declared = {re.split(r"[\[<>=!~; ]", name)[0].lower().replace("_", "-") for name in asked}
    makers = packages_distributions()
    missing = {}
    for path in CODE:
        for module in imported(ast.parse(path.read_text())) - set(sys.stdlib_module_names) - set(PACKAGES):
            distributions = {name.lower().replace("_", "-") for name in makers.get(module, [])}
            if distributions and not distributions & declared:
                missing.setdefault(module, relative(path))
    assert not missing, f"imported, but not in pyproject.toml: {missing}"


def test_every_installed_version_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *(name for extra in extras.keys() - {"gpu"} for name in extras[extra])]
    asked = {re.split(r"[\[<>=~]", name)[0].lower() for name in names}
    assert not asked - pinned
    unbounded = [name for name in {*names, *extras["gpu"]} if not re.search(r"~=|>=.*,<", name)]
    assert not unbounded, "a dependency needs a lower and an upper bound"
    assert "torch==2.13.0" in lines


@pytest.mark.skipif(not hasattr(sys, "addaudithook") or sys.platform == "win32", reason="needs os.fork")
@pytest.mark.timeout(180)
@pytest.mark.timeout(900)  # some 250 imports: a busy machine takes minutes
def test_importing_a_module_does_nothing() -> None:
    others = {line for path in CODE for line in foreign_imports(ast.parse(path.read_text()))}
    modules = [name_of(path) for path in CODE if path.name != "__main__.py"]
    run = [sys.executable, "-c", IMPORTER, "\n".join(sorted(others)), ",".join(modules)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
