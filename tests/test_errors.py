"""One tree of errors: each package has its own in one module, and each says what to do."""

import ast
import re
from importlib import import_module

import pytest

from features.errors import EverlongError, RetryableError, StoreUnavailableError
from tests.beside import ROOT

PACKAGES = ("features", "models", "stream", "infra", "research")


def defined(package):
    """Every error class of ours in a package, by the module that defines it."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases):
                yield path.relative_to(ROOT).as_posix(), node.name


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_are_defined_in_one_module_and_derive_from_one_base(package):
    public = {(path, name) for path, name in defined(package) if not name.startswith("_")}
    assert {path for path, _ in public} == {f"{package}/errors.py"}
    module = import_module(f"{package}.errors")
    for _, name in public:
        assert name.endswith("Error")
        assert issubclass(getattr(module, name), EverlongError)
    listed = set(re.findall(r"\w+Error", module.__doc__))
    assert {name for _, name in public} <= listed


def test_an_error_is_one_sentence_with_its_remedy():
    assert str(EverlongError("no broker is named", "set EVERLONG_KAFKA_BOOTSTRAP")) == "no broker is named: set EVERLONG_KAFKA_BOOTSTRAP"
    assert str(EverlongError("nothing can be done")) == "nothing can be done"
    store = StoreUnavailableError("timeout", retry_after_s=2.0)
    assert isinstance(store, RetryableError)
    assert str(store) == "the online store did not answer: timeout; check EVERLONG_STORE_URL and that the store is up"
    assert (store.remedy, store.retry_after_s) == ("check EVERLONG_STORE_URL and that the store is up", 2.0)
