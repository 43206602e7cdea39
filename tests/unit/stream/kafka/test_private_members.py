"""The private members of Kafka libraries that stream/kafka overrides or reads exist in the installed versions."""

import ast
import inspect
import re
import tomllib
from itertools import chain

import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.subscription_state import Assignment, Subscription, SubscriptionState
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from faust.transport.drivers import aiokafka as driver

from stream.kafka import app, transport
from tests.beside import ROOT

# Methods that we override, with our class.
OVERRIDDEN = [
    (transport.Consumer, driver.Consumer, "_new_consumer_thread"),
    (transport.Consumer, driver.Consumer, "_getmany"),
    (transport.Consumer, driver.Consumer, "_to_message"),
    (transport.Consumer, driver.Consumer, "_filter_tps_with_pending_acks"),
    (transport.Consumer, driver.Consumer, "_new_offset"),
    (transport.Consumer, driver.Consumer, "_add_gap"),
    (transport._Thread, driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
    (app.App, faust.App, "_create_directories"),
    (app._Worker, faust.Worker, "_setproctitle"),
    (app._Worker, faust.Worker, "_on_sigint"),
    (app._Worker, faust.Worker, "_on_sigterm"),
    (app._Worker, faust.Worker, "_crash"),
]
# Methods that we call.
CALLED = [
    (driver.Consumer, "_wait_next_records"),
    (faust.Worker, "_flag_as_shutdown_by_signal"),
    (faust.Worker, "_schedule_shutdown"),
]
# Attributes of objects that we read or set.
ATTRIBUTES = [
    (driver.Consumer, "_thread"),
    (driver.Consumer, "_unacked_messages"),
    (driver.Consumer, "_waiting_for_ack"),
    (driver.Consumer, "_committed_offset"),
    (driver.Consumer, "_read_offset"),
    (driver.AIOKafkaConsumerThread, "_consumer"),
    (AIOKafkaConsumer, "_client"),
    (AIOKafkaConsumer, "_subscription"),
    (AIOKafkaConsumer, "_isolation_level"),
    (AIOKafkaProducer, "_txn_manager"),
    (AIOKafkaProducer, "_message_accumulator"),
    (TransactionManager, "_transaction_waiter"),
]
# Members without an underscore of classes that are no part of a library's interface.
INTERNAL = [
    (MessageAccumulator, "flush"),
    (MessageAccumulator, "fail_all"),
    (SubscriptionState, "subscription"),
    (Assignment, "state_value"),
]
# Names that begin with an underscore and are public, or the interpreter's.
PUBLIC = {"_asdict", "_replace", "_fields", "_make", "_exit"}


@pytest.mark.parametrize(("ours", "theirs", "name"), OVERRIDDEN)
def test_an_overridden_method_has_the_parameters_of_the_library(ours: type, theirs: type, name: str) -> None:
    assert name in vars(ours)
    assert list(inspect.signature(getattr(ours, name)).parameters) == list(inspect.signature(getattr(theirs, name)).parameters)


@pytest.mark.parametrize(("owner", "name"), CALLED + INTERNAL)
def test_a_method_that_we_call_exists(owner: type, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES)
def test_an_attribute_that_we_use_is_used_by_the_library(owner: type, name: str) -> None:
    sources = [inspect.getsource(parent) for parent in owner.__mro__ if parent.__module__.split(".")[0] in ("faust", "mode", "aiokafka")]
    assert any(re.search(rf"\bself\.{name}\b", source) for source in sources)


def test_a_subscription_has_an_assignment() -> None:
    assert isinstance(inspect.getattr_static(Subscription, "assignment"), property)


@pytest.mark.parametrize("ours", [app.App, app.Assignor, app._Worker, transport.Consumer, transport.Transport, transport._Thread])
def test_every_private_method_that_we_override_is_named_here(ours: type) -> None:
    methods = [name for name, value in vars(ours).items() if inspect.isfunction(value) and re.match("_[a-z]", name)]
    theirs = {name for name in methods if any(hasattr(parent, name) for parent in ours.__mro__[1:])}
    assert theirs <= {name for owner, _, name in OVERRIDDEN if owner is ours}


def test_every_private_member_that_we_use_is_named_here() -> None:
    named = {entry[-1] for entry in chain(OVERRIDDEN, CALLED, ATTRIBUTES)}
    own, used = set(), set()
    for path in (ROOT / "stream" / "kafka").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute):
                mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and isinstance(node.ctx, ast.Store)
                (own if mine else used).add(node.attr)
    assert {name for name in used - own - PUBLIC if re.match("_[a-z]", name)} <= named


@pytest.mark.parametrize("package", ["faust-streaming", "aiokafka", "mode-streaming"])
def test_a_library_with_private_members_that_we_use_is_pinned_to_a_minor_version(package: str) -> None:
    [requirement] = [
        line
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
        if re.split(r"[<>=~\[]", line)[0] == package
    ]
    assert re.fullmatch(rf"{package}~=\d+\.\d+\.\d+", requirement)
