"""Hostile inputs near good ones, a few of each target here, the same ones each time; many more and others by `make fuzz`."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

LONG = os.environ.get("EVERLONG_FUZZ") == "long"
EXAMPLES = settings(
    max_examples=500 if LONG else 30, derandomize=not LONG, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_good_inputs_pass(target: Target) -> None:
    for seed in target.seeds:
        target.check(seed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@given(data=st.data())
@EXAMPLES
def test_hostile_inputs_end_as_promised(target: Target, data: st.DataObject) -> None:
    target.check(data.draw(target.near(target.seeds)))
