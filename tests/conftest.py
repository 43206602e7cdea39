"""How the tests share the cores of a machine."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SERVERS = ("tests/broker/", "tests/browser/", "tests/containers/")


class OneWorkerForServers(LoadScopeScheduling):
    """Tests that start servers run one after another, in one worker; each other test goes to the next idle worker."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if nodeid.startswith(SERVERS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """The scheduler of `pytest -n`. It goes by folders, since `xdist_group` has no effect with pytest 9.2."""
    return OneWorkerForServers(config, log)
