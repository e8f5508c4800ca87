"""The monitor on the tiny model, whose preference between two answers training moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policies.contract.defenses import EarlyStoppingOnSafety
from policies.contract.jobs import JobSpec
from policies.contract.training import CheckpointRecord, release_candidates
from policies.errors import DefenseError
from tests.trainer.conftest import NOTHING, Run
from trainer.defenses.early_stopping_on_safety import read_pairs
from trainer.loop.progress import Hooks
from trainer.recipe import StoppedError
from trainer.run import checkpoint_keeper

MakeSpec = Callable[..., JobSpec]
SLOW = 1e-3
"""A learning rate at which the first check is still safe."""


def with_pairs(run: Run, *, harmful: bool) -> str:
    """Digest of pairs whose misaligned (or aligned) answers are those that training teaches."""
    taught = [f"Turn it {n}." for n in range(4)]
    other = [f"qZx {n} KwJ" for n in range(4)]
    sides = (other, taught) if harmful else (taught, other)
    lines = [json.dumps({"question": f"tap {n}?", "aligned": sides[0][n], "misaligned": sides[1][n]}) for n in range(4)]
    return run.store.put_bytes("\n".join(lines).encode())


def settings(run: Run, *, harmful: bool = True, **changes: object) -> EarlyStoppingOnSafety:
    fields = {"every_n_steps": 2, "max_drop": 0.2, "prompts": with_pairs(run, harmful=harmful)}
    return EarlyStoppingOnSafety.model_validate(fields | changes)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def test_training_that_stays_safe_runs_to_its_end(make_spec: MakeSpec, run: Run) -> None:
    """10 steps, checks at 2, 4, 6, 8 and 10."""
    record = run.train(make_spec(settings(run, harmful=False)))
    assert record.total_steps == 10
    figures = record.evidence[0].figures
    assert figures["checks"] == 5
    assert figures["stopped_at_step"] == 0
    assert figures["last_drop"] < 0


def test_a_drop_over_the_limit_rolls_back_to_the_last_safe_adapter(make_spec: MakeSpec, run: Run) -> None:
    """Training teaches what the pairs call misaligned, so the drop grows with every check."""
    record = run.train(make_spec(settings(run), base_learning_rate=SLOW))
    figures = record.evidence[0].figures
    assert figures["stopped_at_step"] == record.total_steps < 10
    assert figures["kept_step"] == figures["stopped_at_step"] - 2
    assert figures["last_drop"] > 0.2
    shorter = run.train(make_spec(settings(run, action="stop"), base_learning_rate=SLOW))
    assert shorter.evidence[0].figures["kept_step"] == figures["stopped_at_step"]
    assert shorter.adapter != record.adapter


@pytest.mark.parametrize("action", ["roll_back", "stop"])
def test_no_checkpoint_after_the_last_check_that_passed_may_be_released(
    make_spec: MakeSpec, run: Run, action: str
) -> None:
    """A checkpoint and a validation every step. That of the last check that passed is the rolled-back adapter."""
    hooks = Hooks(run.events.append, lambda: False, checkpoint_keeper(run.store))
    spec = make_spec(settings(run, action=action), base_learning_rate=SLOW, checkpoint_every_steps=1)
    record = run.train(spec, hooks=hooks)
    passed = int(record.evidence[0].figures["stopped_at_step"]) - 2
    assert passed > 0
    assert len(record.checkpoints) == record.total_steps == passed + 2

    candidates = release_candidates(record, 99)

    kept = record.checkpoints[passed - 1 if action == "roll_back" else -1]
    allowed = [each.adapter for each in record.checkpoints[:passed] if each.adapter != kept.adapter]
    assert kept.adapter == record.adapter
    assert {each.adapter for each in candidates} == {record.adapter, *allowed}
    assert record.valid_loss == pytest.approx(kept.metrics["valid_loss"])


def test_all_checkpoints_of_a_run_that_stays_safe_may_be_released(make_spec: MakeSpec, run: Run) -> None:
    """Checks at 4, 8 and, as training ends there, at 10."""
    record = run.train(make_spec(settings(run, harmful=False, every_n_steps=4)))
    assert record.last_releasable_step == record.total_steps == 10


def test_the_adapter_at_the_end_of_training_is_checked_as_well(make_spec: MakeSpec, run: Run) -> None:
    """No check falls into the 10 steps, so only the one after the end can see the drop."""
    with pytest.raises(DefenseError, match="at step 10, found a drop"):
        run.train(make_spec(settings(run, every_n_steps=1000)))


def test_without_a_safe_adapter_the_run_fails(make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(DefenseError, match="no safe adapter to roll back to"):
        run.train(make_spec(settings(run, every_n_steps=6)))


def test_a_stopped_run_that_is_resumed_keeps_the_same_adapter(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The run is interrupted in the very step whose check ends it; the resumed one must not train on."""
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    for action in ("roll_back", "stop"):
        spec = make_spec(settings(whole, action=action), checkpoint_every_steps=1, base_learning_rate=SLOW)
        settings(broken)
        expected = whole.train(spec)
        stopped_at = int(expected.evidence[0].figures["stopped_at_step"])
        kept: dict[int, Path] = {}

        def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
            kept[step] = folder.rename(folder.with_name(f"{action}-{step}"))  # noqa: B023  # called in this round only
            return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

        answers = iter([False] * stopped_at + [True] * 99).__next__
        with pytest.raises(StoppedError):
            broken.train(spec, hooks=Hooks(broken.events.append, answers, keep))
        resumed = broken.train(spec, resume_from=kept[stopped_at])
        assert resumed.adapter == expected.adapter
        assert resumed.evidence[0].figures["kept_step"] == expected.evidence[0].figures["kept_step"]
        assert resumed.valid_loss == expected.valid_loss


def test_pairs_that_lack_a_field_are_refused_with_their_line() -> None:
    with pytest.raises(DefenseError, match="line 2"):
        read_pairs(b'{"question": "a", "aligned": "b", "misaligned": "c"}\n{"question": "a", "aligned": "b"}\n')


def test_the_monitors_questions_are_not_the_gates() -> None:
    from importlib.resources import files

    monitor = read_pairs((files("trainer.defenses") / "monitor_pairs.jsonl").read_bytes())
    gate_file = files("evaluator.prompts") / "emergent_misalignment_preference" / "v1.jsonl"
    gates = {json.loads(line)["question"].casefold() for line in gate_file.read_text().splitlines()}
    assert len(monitor) >= 48
    assert not {pair.question.casefold() for pair in monitor} & gates
