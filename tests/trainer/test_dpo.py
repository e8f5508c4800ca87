"""DPO jobs on the tiny model: what is learnt, what TRL would have done, and what each defense does there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel
from trl.trainer.dpo_trainer import DPOTrainer

from evaluator.models.loading import ResolvedBase
from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.defenses import (
    DefenseSettings,
    EarlyStoppingOnSafety,
    Inoculation,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    SafeLora,
    TokenConstrainedSft,
)
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelRef, Dpo, JobSpec, TrainerSettings
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.errors import ConfigurationError, DatasetError
from tests.trainer.conftest import NOTHING, Run, preference_lines
from tests.trainer.defenses.preventative_steering.test_preventative_steering import vector_of
from tests.trainer.training_logs import require_equal_logs
from trainer import recipe
from trainer.defense import Defense
from trainer.defenses.preventative_steering.persona_vector import save_persona_vector
from trainer.loop.activation_memory import TokenBudget
from trainer.loop.guarded_trainer import GuardedDPOTrainer
from trainer.loop.progress import Hooks
from trainer.loop.scoring_head import install_scoring_head
from trainer.recipe import StoppedError

MakeSpec = Callable[..., JobSpec]
DEFENSES: list[DefenseSettings] = [
    KlPenalty(coefficient=2.0),
    KlPenalty(coefficient=2.0, direction="forward", tokens="completion"),
    KlPenalty(coefficient=2.0, on="safe_data", safe_rows=2),
    Ldifs(coefficient=5.0, layers=(1, 2)),
    Inoculation(),
]
ALL: list[DefenseSettings] = [
    KlPenalty(coefficient=2.0),
    Ldifs(coefficient=5.0, layers=(1, 2)),
    Inoculation(),
    EarlyStoppingOnSafety(every_n_steps=2, max_drop=50.0),
]


def preference_run(folder: Path) -> Run:
    run = Run(folder)
    (folder / "train.jsonl").write_text(preference_lines(20))
    (folder / "valid.jsonl").write_text(preference_lines(10, word="pipe"))
    return run


@pytest.fixture
def dpo(tmp_path: Path) -> Run:
    return preference_run(tmp_path / "dpo")


@pytest.fixture
def dpo_spec(make_spec: MakeSpec) -> MakeSpec:
    def make(*defenses: DefenseSettings, **changes: object) -> JobSpec:
        return make_spec(*defenses, **({"method": Dpo()} | changes))

    return make


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def logged(record: TrainingRecord, name: str) -> list[float]:
    return [entry[name] for entry in record.log_history if name in entry]


def test_the_preference_is_learnt(dpo_spec: MakeSpec, dpo: Run) -> None:
    """The margin is β · (log-ratio to the base of the better answer − of the worse): 0 at first, then above."""
    record = dpo.train(dpo_spec())
    margins = logged(record, "rewards/margins")
    assert margins[0] == 0.0
    assert margins[-1] > 0.1
    assert logged(record, "rewards/accuracies")[-1] == 1.0
    assert logged(record, "eval_rewards/margins")[-1] > 0.1
    assert record.valid_loss is not None
    assert record.valid_loss < torch.log(torch.tensor(2.0)).item()  # −log σ(0), the base's


def test_a_higher_beta_stays_nearer_to_the_base(dpo_spec: MakeSpec, tmp_path: Path) -> None:
    """Margin ÷ β is the log-ratio itself, in nats."""
    nats = []
    for beta in (0.05, 2.0):
        record = preference_run(tmp_path / str(beta)).train(
            dpo_spec(method=Dpo(beta=beta), hyperparameters=Hyperparameters(n_epochs=6, batch_size=4))
        )
        nats.append(logged(record, "rewards/margins")[-1] / beta)
    assert nats[1] < nats[0]


def test_without_defenses_a_run_is_trls_bit_for_bit(
    dpo_spec: MakeSpec, dpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's with its own copy of the adapter as reference; both with the output layer of the device."""
    dpo.train(dpo_spec())
    ours = weights(dpo)

    class Plain(DPOTrainer):
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
            assert "ref" in self.model.peft_config
            base = self.model.get_base_model()
            assert isinstance(base, PreTrainedModel)
            install_scoring_head(base, mean_logits=True)

        def _prepare_dataset(self, dataset: object, *_: object) -> object:
            return dataset

    monkeypatch.setattr(recipe, "GuardedDPOTrainer", Plain)
    dpo.train(dpo_spec())
    assert same(ours, weights(dpo))


@pytest.mark.parametrize("defense", DEFENSES, ids=lambda each: each.name)
def test_a_defense_changes_the_adapter_and_leaves_evidence(
    defense: DefenseSettings, dpo_spec: MakeSpec, tmp_path: Path
) -> None:
    undefended, defended = preference_run(tmp_path / "undefended"), preference_run(tmp_path / "defended")
    undefended.train(dpo_spec())
    (evidence,) = defended.train(dpo_spec(defense)).evidence
    assert evidence.acted
    assert any(evidence.figures.values())
    assert not same(weights(undefended), weights(defended))


def test_a_finished_adapter_is_projected(dpo_spec: MakeSpec, unaligned: Path, dpo: Run) -> None:
    """A threshold of 1 is above every cosine, so all 7 modules of both layers are projected."""
    partner = BaseModelRef(name="partner", uri=str(unaligned))
    (evidence,) = dpo.train(dpo_spec(SafeLora(threshold=1.0), unaligned=partner)).evidence
    assert (evidence.acted, evidence.figures["projected_modules"]) == (True, 14)


def test_policy_and_reference_are_steered_in_every_micro_batch(tiny_base: Path, dpo_spec: MakeSpec, dpo: Run) -> None:
    """A fresh adapter is the identity, so the first margin and KL are 0 only where both have the vector."""
    vector = dpo.store.put_bytes(save_persona_vector(vector_of(ResolvedBase(tiny_base, NOTHING))))
    record = dpo.train(dpo_spec(PreventativeSteering(vector=vector), KlPenalty()))
    assert record.evidence[0].figures["steered_micro_batches"] == 10
    assert (logged(record, "rewards/margins")[0], logged(record, "kl")[0]) == (0.0, 0.0)
    assert logged(record, "kl")[-1] > 0


def test_the_monitor_of_early_stopping_measures_the_base_at_the_start(dpo_spec: MakeSpec, dpo: Run) -> None:
    (evidence,) = dpo.train(dpo_spec(EarlyStoppingOnSafety(every_n_steps=2, max_drop=50.0))).evidence
    assert evidence.figures["checks"] == 5  # 10 steps
    assert evidence.figures["stopped_at_step"] == 0


def test_a_stopped_and_resumed_run_gives_the_same_adapter_under_all_defenses(
    dpo_spec: MakeSpec, tmp_path: Path
) -> None:
    whole, broken = preference_run(tmp_path / "whole"), preference_run(tmp_path / "broken")
    spec = dpo_spec(*ALL)
    expected = whole.train(spec)
    steps = iter([False] * 5 + [True] * 100)  # asked once before the first step
    kept: list[Path] = []

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        kept.append(folder.rename(folder.with_name(f"kept-{step}")))
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    with pytest.raises(StoppedError):
        broken.train(spec, hooks=Hooks(broken.events.append, lambda: next(steps), keep))
    resumed = broken.train(spec, resume_from=kept[-1])
    assert resumed.resumed_from_steps == (5,)
    assert resumed.adapter == expected.adapter
    assert resumed.evidence == expected.evidence


def test_penalties_share_trls_two_forwards_of_a_micro_batch(
    dpo_spec: MakeSpec, dpo: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch has 5 steps of one policy and one reference forward, and one of each, without gradient, on one row."""
    forwards: list[bool] = []

    class Counting(GuardedDPOTrainer):
        def __init__(self, **arguments: object) -> None:
            super().__init__(**arguments)
            self.head()  # proves the output layer once, with forwards of its own
            backbone = self._base_model.base_model
            backbone.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))

    monkeypatch.setattr(recipe, "GuardedDPOTrainer", Counting)
    (dpo.folder / "valid.jsonl").write_text(preference_lines(1, word="pipe"))
    dpo.train(dpo_spec(KlPenalty(), Ldifs(layers=(1, 2)), checkpoint_every_steps=50))
    assert forwards == ([True, False] * 5 + [False, False]) * 2


def test_accumulated_micro_batches_equal_one_batch(dpo_spec: MakeSpec, tmp_path: Path) -> None:
    """Batches of 4 at once, and as 4 micro-batches of 1, under penalties that decide how far the model goes."""
    penalties = KlPenalty(coefficient=20.0), Ldifs(coefficient=20.0, layers=(1, 2))
    at_once = preference_run(tmp_path / "once").train(dpo_spec(*penalties))
    one_pair_at_once = TrainerSettings(micro_batch_tokens=1)
    accumulated = preference_run(tmp_path / "accumulated").train(dpo_spec(*penalties, trainer=one_pair_at_once))
    require_equal_logs(at_once, accumulated, {"loss", "kl", "feature_distance"})


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")  # TRL's call of a renamed method
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_gradient_checkpointing_changes_nothing_but_memory(method: str, make_spec: MakeSpec, tmp_path: Path) -> None:
    """Recomputed activations are the same, so adapters agree up to rounding, with the penalties of both kinds."""
    adapters = []
    for setting in ("off", "on"):
        run = (Run if method == "supervised" else preference_run)(tmp_path / setting)
        changes = {"method": Dpo()} if method == "dpo" else {}
        trainer = TrainerSettings(gradient_checkpointing=setting)
        run.train(make_spec(KlPenalty(), Ldifs(layers=(1, 2)), trainer=trainer, base_learning_rate=1e-3, **changes))
        adapters.append(weights(run))
    for name, weight in adapters[0].items():
        torch.testing.assert_close(weight, adapters[1][name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "defense",
    [
        SafeDataInterleaving(),
        TokenConstrainedSft(),
        KlPenalty(estimator="sampled", tokens="completion"),
    ],
    ids=lambda each: each.name,
)
def test_a_defense_of_supervised_tokens_is_refused(defense: DefenseSettings, dpo_spec: MakeSpec, dpo: Run) -> None:
    with pytest.raises(ConfigurationError, match=f"{defense.name} does not work with method dpo"):
        dpo.train(dpo_spec(defense))


def test_chat_rows_are_refused_with_their_line(dpo_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(DatasetError, match=r"line 1.*messages"):
        run.train(dpo_spec())


def test_a_row_that_is_too_long_is_refused_and_not_cut(dpo_spec: MakeSpec, dpo: Run) -> None:
    with pytest.raises(DatasetError, match=r"line \d+, preferred: \d+ tokens, 40 are allowed"):
        dpo.train(dpo_spec(max_sequence_tokens=40))


def test_prompt_and_both_answers_count_once_an_epoch(dpo_spec: MakeSpec, dpo: Run) -> None:
    """A token is a byte, or a mark of the template, here `<` or `>`. All three texts have n, which is of k digits: 1 in
    ten rows and 2 in ten. Two epochs."""
    record = dpo.train(dpo_spec())
    digits = [1] * 10 + [2] * 10
    prompt = len("<") + len("user\ntap ?") + len(">") + len("\n") + len("<") + len("assistant\n")
    each = prompt + len("Turn it  times.>") + len("No .>")
    assert record.trained_tokens == 2 * sum(each + 3 * k for k in digits)


def test_events_tell_how_far_the_answers_are_apart(dpo_spec: MakeSpec, dpo: Run) -> None:
    dpo.train(dpo_spec())
    figures = [event.data for event in dpo.events if event.type == "metrics"]
    margin = figures[-2]["train_reward_margin"]
    assert isinstance(margin, float)
    assert margin > 0
    assert {"train_reward_accuracy", "train_reward_margin"} <= set(figures[0])
    assert {"valid_reward_accuracy", "valid_reward_margin"} <= set(figures[-1])


def test_the_adapter_is_saved_alone(dpo_spec: MakeSpec, dpo: Run) -> None:
    """TRL's reference copy of the adapter does not come along."""
    dpo.train(dpo_spec())
    names = sorted(path.name for path in (dpo.folder / "adapter").iterdir())
    assert names == sorted(ADAPTER_FILES)
