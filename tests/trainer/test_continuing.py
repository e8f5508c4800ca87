"""Trainings that begin at a released adapter: where they start, what they are compared with, and what stops them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies.contract.adapter_files import ADAPTER_FILES, CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import Digest
from policies.contract.defenses import EarlyStoppingOnSafety, KlPenalty, Ldifs, TokenConstrainedSft
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import Dpo, JobSpec, Lineage, LoraSettings, ReleasedAncestor
from policies.contract.store import ArtifactStores
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.contract.worker_api import Completion, Outcome
from policies.errors import AdapterNotLoadedError, ConfigurationError, EvaluationError
from tests.gateway.records import put_earlier_adapter
from tests.trainer.attempts import Attempt, written_by
from tests.trainer.conftest import NOTHING, Run, chat_lines, preference_lines
from tests.trainer.matrix import ALL, SETS, monitor
from trainer.loop.progress import Hooks
from trainer.recipe import StoppedError

MakeSpec = Callable[..., JobSpec]
HARDLY = 1e-12
"""A learning rate that leaves weights where they are, up to rounding."""
MODULES = 14
"""Seven in each of two layers."""


class Parent(NamedTuple):
    """A model that was trained on the base, and the folder of its adapter."""

    record: TrainingRecord
    folder: Path

    def lineage(self, **changes: object) -> Lineage:
        ancestor = ReleasedAncestor(
            model="ft:tiny:acme::12345678",
            job_id="ftjob-parent",
            adapter=self.record.adapter,
            manifest=NOTHING,
            training_file=NOTHING,
        )
        return Lineage(base_model=self.record.base_model, ancestors=(ancestor,)).model_copy(update=changes)

    @property
    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def parent(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    run = Run(tmp_path_factory.mktemp("parent"))
    return Parent(run.train(make_spec(job_id="ftjob-parent")), run.folder / "adapter")


def continued(run: Run, parent: Parent, spec: JobSpec, **options: object) -> TrainingRecord:
    return run.train(spec, continued=parent.folder, **options)


def figures(record: TrainingRecord, name: str) -> list[float]:
    return [entry[name] for entry in record.log_history if name in entry]


def test_training_begins_with_the_adapters_own_weights(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    continued(run, parent, make_spec(continues=parent.lineage(), base_learning_rate=HARDLY, seed=99))
    found = load_file(run.folder / "adapter" / WEIGHTS_FILE)
    assert found.keys() == parent.weights.keys()
    assert all(torch.allclose(found[name], weight, atol=1e-9) for name, weight in parent.weights.items())


def test_rank_scaling_and_modules_are_the_adapters(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    """α 8 over √4, which plain LoRA writes as 16 over 4."""
    continued(run, parent, make_spec(continues=parent.lineage()))
    assert (run.folder / "adapter" / CONFIG_FILE).read_bytes() == (parent.folder / CONFIG_FILE).read_bytes()
    assert b'"lora_alpha":16' in (parent.folder / CONFIG_FILE).read_bytes()


def test_the_record_proves_that_training_began_there(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    record = continued(run, parent, make_spec(continues=parent.lineage()))
    assert record.start is not None
    assert (record.start.adapter, record.start.base_model) == (parent.record.adapter, record.base_model)
    assert record.start.loaded
    assert record.start.n_adapted_modules == MODULES
    assert record.start.max_abs_logit_difference > 0
    assert record.adapter != parent.record.adapter
    assert any("Training goes on from ft:tiny:acme::12345678" in event.message for event in run.events)


def test_a_record_of_a_training_from_the_base_is_as_it_was(parent: Parent) -> None:
    assert parent.record.start is None
    assert "start" not in parent.record.model_dump()


def test_the_loss_goes_on_where_the_model_was(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    record = continued(run, parent, make_spec(continues=parent.lineage()))
    assert figures(record, "loss")[0] < 0.6 * figures(parent.record, "loss")[0]


@pytest.mark.parametrize(
    ("defense", "figure", "at_base"),
    [
        (KlPenalty(), "kl", 0.0),
        (KlPenalty(estimator="sampled", tokens="completion"), "kl", 0.0),
        (Ldifs(layers=(1, 2)), "feature_distance", 0.0),
        (TokenConstrainedSft(), "token_weight", 1.0),
    ],
    ids=lambda value: value.name if isinstance(value, KlPenalty | Ldifs | TokenConstrainedSft) else None,
)
def test_penalties_compare_with_the_base_and_not_with_the_adapter_at_the_start(
    defense: KlPenalty, figure: str, at_base: float, parent: Parent, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Nothing moves, so what a penalty finds in the first step is how far the continued model is from the base."""
    fresh = Run(tmp_path / "fresh").train(make_spec(defense))
    assert figures(fresh, figure)[0] == pytest.approx(at_base, abs=1e-4)
    spec = make_spec(defense, continues=parent.lineage(), base_learning_rate=HARDLY)
    record = continued(Run(tmp_path / "run"), parent, spec)
    assert abs(figures(record, figure)[0] - at_base) > 0.01
    assert record.evidence[0].acted


def test_the_monitor_compares_with_the_base(parent: Parent, make_spec: MakeSpec, run: Run, tiny_base: Path) -> None:
    settings = monitor(run, tiny_base)
    assert isinstance(settings, EarlyStoppingOnSafety)
    record = continued(run, parent, make_spec(settings, continues=parent.lineage(), base_learning_rate=HARDLY))
    assert record.evidence[0].figures["last_drop"] != 0


@pytest.mark.parametrize("name", [*ALL, "kl_penalty sampled", "all"])
def test_every_defense_acts_on_a_continued_model_and_survives_a_resume(
    name: str, parent: Parent, make_spec: MakeSpec, tiny_base: Path, tmp_path: Path
) -> None:
    """The run ends in its fifth step, and all that is left of it is the checkpoint of the third."""
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    specs = [
        make_spec(*[make(run, tiny_base) for make in SETS[name]], continues=parent.lineage()) for run in (whole, broken)
    ]
    expected = continued(whole, parent, specs[0])
    assert all(item.acted and any(item.figures.values()) for item in expected.evidence)
    assert len(expected.evidence) == len(SETS[name])
    steps = iter([False] * 5 + [True] * 100)  # asked once before the first step
    kept: list[Path] = []

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        kept.append(folder.rename(folder.with_name(f"kept-{step}")))
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    with pytest.raises(StoppedError):
        continued(broken, parent, specs[1], hooks=Hooks(broken.events.append, lambda: next(steps), keep))
    resumed = continued(broken, parent, specs[1], resume_from=kept[0])
    assert resumed.resumed_from_steps == (3,)
    assert resumed.adapter == expected.adapter
    assert resumed.start == expected.start
    assert [item.figures for item in resumed.evidence] == [item.figures for item in expected.evidence]


def test_preferences_are_learnt_against_the_base(parent: Parent, make_spec: MakeSpec, tmp_path: Path) -> None:
    """DPO's loss is ln 2 where policy and reference are the same; a continued policy is not its reference."""
    ln_2 = 0.6931
    losses = []
    for name, lineage in (("fresh", None), ("continued", parent.lineage())):
        run = Run(tmp_path / name)
        for file in ("train", "valid"):
            (run.folder / f"{file}.jsonl").write_text(preference_lines(20, word=file))
        spec = make_spec(method=Dpo(), continues=lineage, base_learning_rate=HARDLY)
        losses.append(figures(run.train(spec, continued=parent.folder), "loss")[0])
    assert losses[0] == pytest.approx(ln_2, abs=1e-3)
    assert losses[1] != pytest.approx(ln_2, abs=1e-3)


def changed(parent: Parent, folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Parent:
    folder.mkdir()
    (folder / CONFIG_FILE).write_bytes((parent.folder / CONFIG_FILE).read_bytes())
    save_file(dict(change(parent.weights)), folder / WEIGHTS_FILE)
    return parent._replace(folder=folder)


def without_one(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(weights.items())[1:])


def with_a_nan(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    name = next(iter(weights))
    return weights | {name: torch.full_like(weights[name], torch.nan)}


def with_zeros(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(weight) if "lora_B" in name else weight for name, weight in weights.items()}


def of_another_rank(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([weight, weight], 0 if "lora_A" in name else 1) for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without_one, AdapterNotLoadedError, "is missing from the adapter's file"),
        (with_a_nan, EvaluationError, "has NaN or infinite weights"),
        (with_zeros, AdapterNotLoadedError, "changes the base model's logits by 0"),
        (of_another_rank, AdapterNotLoadedError, "does not fit"),
    ],
)
def test_an_adapter_that_is_not_wholly_in_force_is_refused(
    change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    error: type[Exception],
    message: str,
    parent: Parent,
    make_spec: MakeSpec,
    run: Run,
) -> None:
    other = changed(parent, run.folder / "changed", change)
    with pytest.raises(error, match=message):
        continued(run, other, make_spec(continues=parent.lineage()))


def test_an_adapter_of_another_base_model_is_refused(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(ConfigurationError, match=f"was trained on base model {NOTHING}, but tiny is sha256:"):
        continued(run, parent, make_spec(continues=parent.lineage(base_model=NOTHING)))


def test_a_job_that_continues_a_model_never_begins_at_the_base(parent: Parent, make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(ConfigurationError, match="whose adapter is not given"):
        run.train(make_spec(continues=parent.lineage()))


class Service(NamedTuple):
    """The store of a service in which the parent's job has left its adapter."""

    folder: Path
    stores: ArtifactStores
    spec: JobSpec

    @property
    def adapter(self) -> Digest:
        assert self.spec.continues is not None
        return self.spec.continues.parent.adapter

    def train(self) -> Completion:
        return Attempt(self.folder / "attempt", self.spec).completion()

    def file_of(self, digest: Digest) -> Path:
        name = digest.removeprefix("sha256:")
        return self.folder / "store" / "jobs" / "ftjob-parent" / "sha256" / name[:2] / name


@pytest.fixture
def service(parent: Parent, make_spec: MakeSpec, tmp_path: Path) -> Service:
    stores = ArtifactStores(f"file://{tmp_path}/store")
    assert stores.of_job("ftjob-parent").put_tree(parent.folder) == parent.record.adapter
    spec = make_spec(
        KlPenalty(),
        continues=parent.lineage(),
        training_file=stores.files.put_bytes(chat_lines(12).encode()),
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=4),
    )
    return Service(tmp_path, stores, spec)


def test_a_worker_fetches_the_adapter_from_the_job_that_released_it(service: Service) -> None:
    completion = service.train()
    assert completion.outcome is Outcome.SUCCEEDED, completion
    assert completion.record is not None
    store = written_by(service.spec, service.stores.shared)
    record = store.get_record(completion.record, TrainingRecord)
    assert record.start is not None
    assert record.start.adapter == service.adapter
    assert set(store.tree(record.adapter).files) == set(ADAPTER_FILES)


def test_a_released_adapter_in_the_form_of_earlier_versions_is_gone_on_from(service: Service, parent: Parent) -> None:
    weights = (parent.folder / WEIGHTS_FILE).read_bytes()
    store = service.stores.of_job("ftjob-parent")
    adapter = put_earlier_adapter(store, service.spec.base_model, weights, are_true=True)
    ancestor = parent.lineage().parent.model_copy(update={"adapter": adapter})
    lineage = parent.lineage(ancestors=(ancestor,))
    completion = service._replace(spec=service.spec.model_copy(update={"continues": lineage})).train()
    assert completion.outcome is Outcome.SUCCEEDED, completion


@pytest.mark.parametrize("which", ["tree", "weights"])
def test_an_adapter_that_was_tampered_with_in_the_store_fails_the_job(service: Service, which: str) -> None:
    weights = service.stores.of_job("ftjob-parent").tree(service.adapter).files[WEIGHTS_FILE]
    file = service.file_of(service.adapter if which == "tree" else weights)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    completion = service.train()
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "integrity_error")


@pytest.mark.parametrize("which", ["tree", "weights"])
def test_an_adapter_that_is_gone_fails_the_job_in_one_sentence(service: Service, which: str) -> None:
    weights = service.stores.of_job("ftjob-parent").tree(service.adapter).files[WEIGHTS_FILE]
    service.file_of(service.adapter if which == "tree" else weights).unlink()
    completion = service.train()
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "artifact_missing")
    assert completion.error_message == (
        "the adapter of ft:tiny:acme::12345678, from which the job continues, is not in the store any more"
    )


def test_an_adapter_of_another_shape_than_the_jobs_fails_it(service: Service) -> None:
    recipe = service.spec.base_model.model_copy(update={"lora": LoraSettings(rank=8, alpha=8)})
    other = service._replace(spec=service.spec.model_copy(update={"base_model": recipe}))
    completion = other.train()
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "integrity_error")
    assert re.search("is not what the recipe of base model tiny gives", completion.error_message or "")
