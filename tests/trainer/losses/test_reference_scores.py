"""The base's log-probabilities: right, computed once, and never another run's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from peft import PeftModel

from evaluator.models.base_models import ResolvedBase
from policies.contract.defenses import KlPenalty, PreventativeSteering, TokenConstrainedSft
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec
from policies.errors import DefenseError
from tests.trainer.conftest import NOTHING, Run
from tests.trainer.matrix import steering
from trainer.defense import Defense
from trainer.defenses.preventative_steering.defense import PreventativeSteeringDefense
from trainer.defenses.preventative_steering.persona_vector import load_persona_vector
from trainer.preparation import reference_key

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


def flipped(content: bytes) -> bytes:
    """With another last bit in a log-probability: still finite, and as many as before."""
    return content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]


@pytest.mark.parametrize("change", [flipped, lambda content: content[:-8]], ids=["changed", "cut short"])
def test_scores_that_are_not_those_that_were_stored_are_refused(
    change: Callable[[bytes], bytes], make_spec: MakeSpec, run: Run
) -> None:
    run.train(make_spec(SAMPLED))
    (path,) = cached(run)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DefenseError, match="remove it"):
        run.train(make_spec(SAMPLED))


def test_scores_under_the_name_of_others_are_refused(make_spec: MakeSpec, run: Run) -> None:
    """One letter differs, so there are equally many of both."""
    spec = make_spec(SAMPLED, hyperparameters=Hyperparameters(n_epochs=1, batch_size=2))
    run.train(spec)
    (first,) = cached(run)
    rows = (run.folder / "train.jsonl").read_text()
    (run.folder / "train.jsonl").write_text(rows.replace("Turn", "Tarn"))
    run.train(spec)
    (second,) = set(cached(run)) - {first}
    assert second.stat().st_size == first.stat().st_size
    second.write_bytes(first.read_bytes())
    with pytest.raises(DefenseError, match="does not hold this run's scores"):
        run.train(spec)


def test_scores_under_another_vector_have_another_key_whatever_the_vector_is_called(
    make_spec: MakeSpec, tiny_base: Path, run: Run
) -> None:
    """Equal settings name vectors that differ, as the built-in ones of two versions may."""
    vector = load_persona_vector(run.store.read_bytes(steering(run, tiny_base).vector), name="test")
    other = vector._replace(direction=-vector.direction)
    spec, base = make_spec(SAMPLED), ResolvedBase(tiny_base, NOTHING)
    keys = [
        reference_key(spec, base, [PreventativeSteeringDefense(PreventativeSteering(coefficient=coefficient), each)])
        for each, coefficient in ((vector, 0.2), (vector, 0.2), (other, 0.2), (vector, 0.3))
    ]
    assert keys[0] == keys[1]
    assert len({*keys, reference_key(spec, base, [])}) == 4


def test_a_defense_that_changes_forwards_and_does_not_say_by_what_has_no_key(
    make_spec: MakeSpec, tiny_base: Path
) -> None:
    class Silent(Defense):
        changes_forwards = True

        def around_forward(self, model: PeftModel) -> AbstractContextManager[object]:
            return nullcontext()

    with pytest.raises(NotImplementedError, match="Silent changes forwards"):
        reference_key(make_spec(), ResolvedBase(tiny_base, NOTHING), [Silent()])
