"""The package graph of the tree: its packages, the imports between them, cycles, and the counts that show how it grows.

A package is a folder with Python files; its own files and those of a subfolder are different packages. `python -m tests.package_graph
[CHECKOUT]` prints the counts of a checkout; tests/test_package_graph.py keeps it free of cycles and of upward imports.
"""

import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("features", "models", "stream", "infra", "research")
SMALL = 45  # lines


class Import(NamedTuple):
    """One import of a module of another package."""

    importer: str
    imported: str


class Counts(NamedTuple):
    """What one line of the printed table holds."""

    packages: int
    files: int
    imports: int
    cycles: int
    upward: int
    small: int
    repeated: int


class Tree:
    """The modules of a checkout, by dotted name.

    Args:
        root: the checkout.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.paths = {_module(path.relative_to(root)): path for name in ROOTS for path in sorted((root / name).rglob("*.py"))}
        self.syntax = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in self.paths.items()}
        self.layers = list(_layers(root / "pyproject.toml"))

    def package(self, module: str) -> str:
        """The package that holds a module: `features.rows` lies in `features`, and so does `features` itself."""
        return module if self.paths[module].name == "__init__.py" else module.rpartition(".")[0]

    @cached_property
    def imports(self) -> list[Import]:
        """Imports that cross a package border, one per pair of modules."""
        pairs = (Import(module, name) for module, tree in self.syntax.items() for name in sorted(set(self._imported(module, tree))))
        return [pair for pair in pairs if self.package(pair.importer) != self.package(pair.imported)]

    def graph(self) -> dict[str, set[str]]:
        """The packages, each with those it imports."""
        graph: dict[str, set[str]] = {self.package(module): set() for module in self.paths}
        for importer, imported in self.imports:
            graph[self.package(importer)].add(self.package(imported))
        return graph

    def upward(self) -> list[Import]:
        """Imports against the `layers` contracts of pyproject.toml."""
        return [found for found in self.imports if any(_climbs(found, layers) for layers in self.layers)]

    def repeated_classes(self, within: str = "") -> dict[str, list[str]]:
        """Public class names that several modules define, with the modules; those of one root package, or of all."""
        places = defaultdict(list)
        for module, tree in self.syntax.items():
            if not within or module.split(".")[0] == within:
                for node in tree.body:
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        places[node.name].append(module)
        return {name: modules for name, modules in sorted(places.items()) if len(modules) > 1}

    def counts(self, within: str = "") -> Counts:
        """The counts of one root package (imports: those inside it), or of all."""

        def counted(module: str) -> bool:
            return not within or module.split(".")[0] == within

        graph = {package: {other for other in others if counted(other)} for package, others in self.graph().items() if counted(package)}
        files = [path for module, path in self.paths.items() if counted(module) and path.name != "__init__.py"]
        return Counts(
            packages=len(graph),
            files=len(files),
            imports=sum(map(len, graph.values())),
            cycles=len(cycles(graph)),
            upward=len([found for found in self.upward() if counted(found.importer)]),
            small=len([path for path in files if len(path.read_text(encoding="utf-8").splitlines()) < SMALL]),
            repeated=len(self.repeated_classes(within)),
        )

    def _imported(self, module: str, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.paths)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                for name in (f"{base}.{alias.name}" for alias in node.names):
                    if name in self.paths:
                        yield name
                    elif base in self.paths:
                        yield base

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.package(module).split(".")
        return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of packages that import each other, directly or through others; each group sorted."""
    reachable = {package: _reachable(graph, package) for package in graph}
    groups = {
        tuple(sorted(other for other in reachable[package] if package in reachable[other]))
        for package in graph
        if package in reachable[package]
    }
    return [list(group) for group in sorted(groups)]


def report(tree: Tree) -> str:
    """The counts of all root packages as a table, with the cycles, upward imports and repeated class names listed below it."""
    head = ("", "packages", "files", "imports between", "cycles", "upward", f"files under {SMALL} lines", "class names used twice")
    present = {module.split(".")[0] for module in tree.paths}
    lines = [head, *((root, *map(str, tree.counts(root))) for root in ROOTS if root in present), ("all", *map(str, tree.counts()))]
    rows = [
        root.ljust(8) + "".join(cell.rjust(len(title) + 2) for cell, title in zip(cells, head[1:], strict=True)) for root, *cells in lines
    ]
    rows += [f"cycle: {', '.join(group)}" for group in cycles(tree.graph())]
    rows += [f"upward: {found.importer} imports {found.imported}" for found in tree.upward()]
    rows += [f"class {name}: {', '.join(modules)}" for name, modules in tree.repeated_classes().items()]
    return "\n".join(rows)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (package := waiting.pop()) not in seen:
            seen.add(package)
            waiting += graph[package]
    return seen


def _layers(path: Path) -> Iterator[list[list[str]]]:
    """The contracts of type `layers`, highest layer first; a layer is one module, or several that are independent of each other."""
    contracts = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("importlinter", {}).get("contracts", [])
    for contract in contracts:
        if contract["type"] == "layers":
            for prefix in [f"{container}." for container in contract.get("containers", [])] or [""]:
                yield [[prefix + name.strip(" ()") for name in layer.replace(":", "|").split("|")] for layer in contract["layers"]]


def _climbs(found: Import, layers: list[list[str]]) -> bool:
    ranks = [_rank(module, layers) for module in found]
    return None not in ranks and ranks[1] < ranks[0]


def _rank(module: str, layers: list[list[str]]) -> int | None:
    ranks = [rank for rank, names in enumerate(layers) for name in names if module == name or module.startswith(f"{name}.")]
    return ranks[0] if ranks else None


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


if __name__ == "__main__":
    print(report(Tree(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
