from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from policies.errors import IntegrityError
from trainer.defense import Counters


@dataclass
class Some(Counters):
    steps: int = 0
    largest: float = 0.0


def test_counters_come_back_from_json_as_they_were() -> None:
    counters = Some(steps=3, largest=0.25)
    assert Some().restored(json.loads(json.dumps(counters.state()))) == counters


@pytest.mark.parametrize("state", [{"steps": 3}, {"steps": 3, "largest": 1.0, "checks": 1}, {}])
def test_a_counter_that_is_missing_or_unknown_is_an_error(state: dict[str, float]) -> None:
    with pytest.raises(IntegrityError, match=r"\['largest', 'steps'\]"):
        Some().restored(state)


def test_a_counter_that_is_not_finite_is_seen() -> None:
    assert Some(largest=1.0).are_finite
    assert not Some(largest=float("nan")).are_finite
