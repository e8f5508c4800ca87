"""All defenses in one matrix, on real runs of the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.defenses import DefenseSettings, KlPenalty, Ldifs, TokenConstrainedSft
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec, TrainerSettings
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.errors import DefenseError, NonFiniteLossError
from tests.trainer.conftest import NOTHING, Run
from tests.trainer.matrix import ALL, MEASURING, SETS
from tests.trainer.training_logs import require_equal_logs
from trainer import recipe
from trainer.defense import Defense
from trainer.loop.activation_memory import TokenBudget
from trainer.loop.observation import observe
from trainer.loop.progress import Hooks
from trainer.loop.scoring_head import install_scoring_head
from trainer.recipe import StoppedError

MakeSpec = Callable[..., JobSpec]
ONE_ROW_AT_ONCE = TrainerSettings(micro_batch_tokens=1)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Trained(NamedTuple):
    """A run of ten steps that nothing disturbed."""

    run: Run
    record: TrainingRecord
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def trained(
    make_spec: MakeSpec, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str | None], Trained]:
    """The run of a set of defenses, or of none, trained once."""

    @cache
    def train(name: str | None) -> Trained:
        run = Run(tmp_path_factory.mktemp("trained"))
        record = run.train(make_spec(*[make(run, tiny_base) for make in SETS[name]] if name else ()))
        return Trained(run, record, weights(run))

    return train


@pytest.mark.parametrize("name", SETS)
def test_an_active_defense_changes_the_adapter_and_leaves_evidence(
    name: str, trained: Callable[[str | None], Trained], tiny_base: Path
) -> None:
    undefended, defended = trained(None), trained(name)
    defenses = [make(defended.run, tiny_base) for make in SETS[name]]
    assert undefended.record.evidence == ()
    evidence = defended.record.evidence
    assert [item.name for item in evidence] == [defense.name for defense in defenses]
    assert all(item.acted and any(item.figures.values()) for item in evidence)
    assert same(undefended.weights, defended.weights) == ({each.name for each in defenses} <= MEASURING)


@pytest.mark.parametrize("pair", list(combinations(ALL, 2)), ids=" + ".join)
def test_every_pair_of_defenses_works_together(
    pair: tuple[str, str], make_spec: MakeSpec, tiny_base: Path, run: Run
) -> None:
    record = run.train(
        make_spec(*(ALL[name](run, tiny_base) for name in pair), hyperparameters=Hyperparameters(batch_size=4))
    )
    assert [item.name for item in record.evidence] == list(pair)


@pytest.mark.parametrize("name", SETS)
def test_a_run_that_was_killed_and_resumed_gives_the_same_adapter(
    name: str, trained: Callable[[str | None], Trained], make_spec: MakeSpec, tiny_base: Path, tmp_path: Path
) -> None:
    """The run ends in its fifth step, and all that is left of it is the checkpoint of the third."""
    whole, broken = trained(name), Run(tmp_path / "broken")
    spec = make_spec(*[make(broken, tiny_base) for make in SETS[name]])
    assert whole.record.spec == spec.digest
    steps = iter([False] * 5 + [True] * 100)  # asked once before the first step
    kept: list[Path] = []

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        kept.append(folder.rename(folder.with_name(f"kept-{step}")))
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    with pytest.raises(StoppedError):
        broken.train(spec, hooks=Hooks(broken.events.append, lambda: next(steps), keep))
    resumed = broken.train(spec, resume_from=kept[0])
    assert resumed.resumed_from_steps == (3,)
    assert same(whole.weights, weights(broken))
    assert resumed.adapter == whole.record.adapter
    figures = [[item.figures for item in record.evidence] for record in (whole.record, resumed)]
    assert figures[0] == figures[1]


def test_without_defenses_a_run_is_trls_bit_for_bit(
    trained: Callable[[str | None], Trained], make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both with the output layer of the device, which `test_output_layer.py` compares with TRL's."""

    class Plain(SFTTrainer):
        def __init__(
            self,
            *,
            defenses: list[Defense],
            companions: object,
            budget: TokenBudget,
            **arguments: Any,  # Any: TRL's own
        ) -> None:
            super().__init__(**arguments)
            assert isinstance(self.model, PeftModel)
            base = self.model.get_base_model()
            assert isinstance(base, PreTrainedModel)
            install_scoring_head(base)

    monkeypatch.setattr(recipe, "GuardedSFTTrainer", Plain)
    run.train(make_spec())
    assert same(trained(None).weights, weights(run))


@pytest.mark.parametrize(
    "defenses",
    [
        [KlPenalty(coefficient=20.0), Ldifs(coefficient=20.0, layers=(1, 2))],
        [KlPenalty(coefficient=1.0, estimator="sampled", tokens="completion"), TokenConstrainedSft()],
    ],
    ids=["kl and ldifs", "reference scores"],
)
def test_accumulated_micro_batches_equal_one_batch(
    defenses: list[DefenseSettings], make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Batches of 4 at once, and as 4 micro-batches of 1, under penalties that decide how far the model goes."""
    spec = make_spec(*defenses)
    at_once = Run(tmp_path / "once").train(spec)
    accumulated = Run(tmp_path / "accumulated").train(make_spec(*defenses, trainer=ONE_ROW_AT_ONCE))
    figure = "feature_distance" if defenses[1].name == "ldifs" else "token_weight"
    require_equal_logs(at_once, accumulated, {"loss", "kl", figure})


def test_the_kl_of_a_strong_penalty_stays_lower(make_spec: MakeSpec, tmp_path: Path) -> None:
    last = []
    for coefficient in (0.001, 5.0):
        record = Run(tmp_path / str(coefficient)).train(make_spec(KlPenalty(coefficient=coefficient)))
        last.append(record.evidence[0].figures["last_kl_nats_per_token"])
    assert last[1] < last[0] / 2


def test_the_kl_starts_at_exactly_zero_and_its_gradient_reaches_the_adapter(make_spec: MakeSpec, run: Run) -> None:
    """A fresh adapter is the identity; the first step of two epochs of five steps warms up with learning rate 0."""
    record = run.train(make_spec(KlPenalty()))
    kl = [entry["kl"] for entry in record.log_history if "kl" in entry]
    assert kl[:2] == [0.0, 0.0]
    assert min(kl[2:]) > 0
    figures = record.evidence[0].figures
    assert figures["first_gradient_norm"] > 0
    assert figures["steps"] == record.total_steps == 10
    assert figures["last_kl_nats_per_token"] == pytest.approx(kl[-1])


@pytest.mark.parametrize(
    "defense",
    [
        KlPenalty(),
        KlPenalty(estimator="sampled", tokens="completion"),
        KlPenalty(on="safe_data"),
        Ldifs(layers=(1,)),
        TokenConstrainedSft(),
    ],
    ids=["kl full", "kl sampled", "kl on safe data", "ldifs", "token constrained"],
)
def test_a_defense_that_does_nothing_fails_the_run(defense: DefenseSettings, make_spec: MakeSpec, run: Run) -> None:
    """A learning rate of 1e-30 leaves the adapter at identity, so nothing comes about but rounding."""
    with pytest.raises(DefenseError, match=f"{defense.name} did not act"):
        run.train(make_spec(defense, base_learning_rate=1e-30))


@pytest.mark.parametrize("name", ["all", "early_stopping_on_safety"])
def test_a_run_that_was_killed_after_its_last_step_only_ends(
    name: str, make_spec: MakeSpec, tiny_base: Path, run: Run
) -> None:
    """All that was left to do is what comes after training, and it gives the same adapter."""
    spec = make_spec(*[make(run, tiny_base) for make in SETS[name]])
    kept: list[Path] = []

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        kept.append(folder.rename(folder.with_name(f"kept-{step}")))
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    whole = run.train(spec, hooks=Hooks(run.events.append, lambda: False, keep))
    resumed = run.train(spec, resume_from=kept[-1])
    assert resumed.resumed_from_steps == (whole.total_steps,)
    assert resumed.adapter == whole.adapter


def test_a_loss_that_is_not_finite_stops_the_run(make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(NonFiniteLossError):
        run.train(
            make_spec(
                base_learning_rate=0.99,
                hyperparameters=Hyperparameters(n_epochs=2, batch_size=4, learning_rate_multiplier=1e30),
            )
        )
    assert not (run.folder / "adapter").exists()


def test_hooks_come_off_after_an_exception(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    with pytest.raises(RuntimeError), observe(model, [1, 2], lambda *_, **__: None):
        raise RuntimeError
    assert not any(module._forward_hooks for module in model.modules())


def test_events_tell_loss_kl_progress_and_validation(make_spec: MakeSpec, run: Run) -> None:
    record = run.train(make_spec(KlPenalty()))
    metrics = [event for event in run.events if event.type == "metrics"]
    trained = [event for event in metrics if "train_loss" in event.data]
    assert [event.data["step"] for event in trained] == list(range(1, record.total_steps + 1))
    assert all("kl" in event.data for event in trained)
    assert trained[-1].progress is not None
    assert trained[-1].progress.total_steps == record.total_steps == 10
    assert record.valid_loss == pytest.approx(
        next(e.data["valid_loss"] for e in reversed(metrics) if "valid_loss" in e.data)
    )


def test_the_saved_adapter_names_the_model_and_holds_no_path(make_spec: MakeSpec, run: Run) -> None:
    run.train(make_spec())
    files = sorted(path.name for path in (run.folder / "adapter").iterdir())
    assert files == sorted(ADAPTER_FILES)
    assert '"base_model_name_or_path":"tiny"' in (run.folder / "adapter" / "adapter_config.json").read_text()


def test_no_pickle_is_written_into_a_checkpoint(make_spec: MakeSpec, run: Run) -> None:
    seen: list[set[str]] = []

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        seen.append({path.suffix for path in folder.rglob("*")})
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING)

    run.train(make_spec(), hooks=Hooks(run.events.append, lambda: False, keep))
    assert seen
    assert all(suffixes <= {".json", ".safetensors", ".jinja", ".md"} for suffixes in seen)


def test_every_defense_has_a_builder() -> None:
    from typing import get_args

    from trainer.registry import _BUILDERS

    union = get_args(get_args(DefenseSettings)[0])
    assert set(_BUILDERS) == set(union)
