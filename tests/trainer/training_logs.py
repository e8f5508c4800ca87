"""What the training logs of runs that differ only in rounding have in common."""

from __future__ import annotations

import pytest

from policies.contract.training import TrainingRecord

ROUNDING = 0.05
"""Of bfloat16, where the CPU has it, over the steps of a short run."""


def require_equal_logs(expected: TrainingRecord, actual: TrainingRecord, names: set[str]) -> None:
    """Raises unless both runs logged these figures in the same steps, equal but for rounding.

    A figure of a step is a mean over many tokens. The weights are not compared: where a gradient is nearly 0, Adam
    makes whole steps of the rounding.
    """
    assert names <= {name for entry in expected.log_history for name in entry}
    for left, right in zip(expected.log_history, actual.log_history, strict=True):
        assert left.keys() == right.keys()
        for name in names & left.keys():
            assert right[name] == pytest.approx(left[name], rel=ROUNDING, abs=1e-5), (name, left["step"])
