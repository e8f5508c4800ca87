"""The base's log-probabilities: right, computed once, and never another run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policies.contract.defenses import KlPenalty, TokenConstrainedSft
from policies.contract.jobs import Hyperparameters, JobSpec
from policies.errors import DefenseError

from .conftest import Run

MakeSpec = Callable[..., JobSpec]
SAMPLED = KlPenalty(coefficient=1.0, estimator="sampled", tokens="completion")


def cached(run: Run) -> list[Path]:
    return sorted((run.folder / "cache" / "reference-scores").glob("*.safetensors"))


def passes(run: Run) -> int:
    return sum("Reference log-probabilities" in event.message for event in run.events)


def test_at_identity_policy_and_reference_agree_up_to_rounding(make_spec: MakeSpec, run: Run) -> None:
    """The first two steps have an adapter that is the identity, so k3 of equal log-probabilities is 0."""
    record = run.train(make_spec(SAMPLED))
    kl = [entry["kl"] for entry in record.log_history if "kl" in entry]
    assert kl[:2] == pytest.approx([0, 0], abs=1e-4)
    assert max(kl[2:]) > 1e-3


def test_they_are_computed_once_for_both_defenses_and_read_again_later(make_spec: MakeSpec, run: Run) -> None:
    spec = make_spec(SAMPLED, TokenConstrainedSft())
    first = run.train(spec)
    n_passes = passes(run)
    assert n_passes > 0
    assert len(cached(run)) == 1
    second = run.train(spec)
    assert passes(run) == n_passes
    assert second.adapter == first.adapter


def test_other_data_has_scores_of_its_own(make_spec: MakeSpec, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.train(make_spec(SAMPLED, hyperparameters=Hyperparameters(n_epochs=1, batch_size=2)))
    (run.folder / "train.jsonl").write_text((run.folder / "train.jsonl").read_text().replace("Turn", "Twist"))
    run.train(make_spec(SAMPLED, hyperparameters=Hyperparameters(n_epochs=1, batch_size=2)))
    assert len(cached(run)) == 2


def test_scores_that_were_cut_short_are_refused(make_spec: MakeSpec, run: Run) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    run.train(make_spec(SAMPLED))
    (path,) = cached(run)
    save_file({"log_probs": load_file(path)["log_probs"][:-1].clone()}, path)
    assert torch.is_tensor(load_file(path)["log_probs"])
    with pytest.raises(DefenseError, match="remove it"):
        run.train(make_spec(SAMPLED))
