"""A job is trained in the number format that `TUNEGATE_DTYPE` names, and scores of another format are not reused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.models.base_models import ResolvedBase
from policies.contract.jobs import JobSpec
from tests.trainer.conftest import NOTHING, Run
from trainer.preparation import reference_key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_job_is_trained_in_the_format_that_is_set(
    dtype: str, make_spec: Callable[..., JobSpec], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", dtype)
    record = run.train(make_spec())
    assert record.dtype == dtype
    assert record.valid_loss is not None


def test_remembered_reference_scores_belong_to_one_format(
    make_spec: Callable[..., JobSpec], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("TUNEGATE_DTYPE", dtype)
        keys.add(reference_key(make_spec(), ResolvedBase(tiny_base, NOTHING), []))
    assert len(keys) == 2
