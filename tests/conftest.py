"""How the tests share the cores of a machine."""

import pytest

WHOLE_MACHINE = {"broker", "browser", "chaos", "containers"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start servers run one after another, in one worker of pytest-xdist; the others share the remaining workers."""
    for item in items:
        if any(item.get_closest_marker(name) for name in WHOLE_MACHINE):
            item.add_marker(pytest.mark.xdist_group("machine"))
