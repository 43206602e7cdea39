"""The packages import each other one way, and the script that counts them counts right."""

from pathlib import Path

import pytest

from tests.package_graph import Counts, Import, Tree, cycles, report

LADDER = """
[[tool.importlinter.contracts]]
type = "layers"
layers = ["infra", "features"]

[[tool.importlinter.contracts]]
type = "layers"
containers = ["models"]
layers = ["training", "index | encoding"]
"""


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree()


def checkout(folder: Path, files: dict[str, str]) -> Tree:
    """A checkout with these files and the contracts of LADDER."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "pyproject.toml").write_text(LADDER)
    return Tree(folder)


def test_the_packages_have_no_cycle(tree: Tree) -> None:
    assert not cycles(tree.graph())


def test_models_has_at_most_12_packages(tree: Tree) -> None:
    assert tree.counts("models").packages <= 12


def test_no_package_imports_upward(tree: Tree) -> None:
    assert not tree.upward()


def test_a_class_name_means_one_thing(tree: Tree) -> None:
    assert tree.repeated_classes() == {}


def test_a_cycle_of_packages_is_found(tmp_path: Path) -> None:
    tree = checkout(
        tmp_path,
        {
            "features/__init__.py": "",
            "features/rows.py": "from features.store import reader\n",
            "features/store/__init__.py": "",
            "features/store/reader.py": "from ..feast.views import View\n",
            "features/feast/views.py": "def late():\n    import features.rows\n",
            "features/sources/files.py": "import features.rows\n",
        },
    )
    assert cycles(tree.graph()) == [["features", "features.feast", "features.store"]]
    assert "cycle: features, features.feast, features.store" in report(tree)
    assert tree.counts().cycles == 1


def test_an_import_against_a_contract_is_upward(tmp_path: Path) -> None:
    tree = checkout(
        tmp_path,
        {
            "infra/cli.py": "import features.rows\n",
            "features/rows.py": "from infra import cli\n",
            "models/training/loop.py": "from models.index import topk\n",
            "models/index/topk.py": "from models.training.loop import fit\nfrom models.encoding import inputs\n",
            "models/encoding/inputs.py": "import models.index.topk\n",
        },
    )
    assert tree.upward() == [Import("features.rows", "infra.cli"), Import("models.index.topk", "models.training.loop")]
    assert tree.counts("models").upward == 1


def test_counts(tmp_path: Path) -> None:
    tree = checkout(
        tmp_path,
        {
            "features/__init__.py": "class Row: ...\n",
            "features/long.py": "\n" * 45 + "class Plan: ...\nclass _Own: ...\n",
            "features/store/short.py": "from features.long import Plan\nimport features.long\nclass Row: ...\nclass _Own: ...\n",
            "infra/show.py": "from features import store, Row\nclass Plan: ...\n",
        },
    )
    assert tree.counts("features") == Counts(packages=2, files=2, imports=1, cycles=0, upward=0, small=1, repeated=1)
    assert tree.repeated_classes() == {"Plan": ["features.long", "infra.show"], "Row": ["features", "features.store.short"]}
