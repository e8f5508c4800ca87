"""SafeLoRA against the dense formula, and in real runs of the tiny model with an unaligned partner made for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from evaluator.models.base_models import resolve_base_model
from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.artifacts import digest_tree
from policies.contract.defenses import SafeLora
from policies.contract.jobs import BaseModelRef, Dpo, JobSpec, Method, Supervised, TrainerSettings
from policies.contract.training import TrainingRecord, release_candidates
from policies.contract.worker_api import Assignment, Work
from policies.errors import ConfigurationError, DefenseError
from tests.trainer.attempts import written_by
from tests.trainer.conftest import WEIGHTS, Run, preference_lines, with_weights
from trainer.defense import DefenseContext
from trainer.defenses.safe_lora.alignment_subspace import StoredWeights, alignment_difference, projected, update_cosine
from trainer.defenses.safe_lora.defense import SafeLoraDefense
from trainer.loop.progress import Hooks
from trainer.run import checkpoint_keeper, train_assignment

MakeSpec = Callable[..., JobSpec]
Weights = dict[str, Tensor]
Q, KEY = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj.weight"


def partner(folder: Path) -> BaseModelRef:
    return BaseModelRef(name="partner", uri=str(folder))


def adapted(base: Path, *, rank: int = 4, targets: tuple[str, ...] = ("q_proj",)) -> PeftModel:
    """The tiny model with an adapter that was trained to something."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=rank, target_modules=list(targets)))
    assert isinstance(model, PeftModel)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def factors(model: PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of B and A by module."""
    named = {n.removeprefix("base_model.model."): p.detach().clone() for n, p in model.named_parameters()}
    ends = (".lora_B.default.weight", ".lora_A.default.weight")
    modules = [name.removesuffix(ends[0]) for name in named if name.endswith(ends[0])]
    return {module: (named[module + ends[0]], named[module + ends[1]]) for module in modules}


def dense(v: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, float]:
    """C·B and the cosine as the paper writes them: C = V·Vᵀ ÷ ‖V‖_F in full, and whole updates as vectors."""
    c = v @ v.T / v.norm()
    return c @ b, torch.cosine_similarity((c @ b @ a).flatten(), (b @ a).flatten(), dim=0).item()


def dense_by_module(model: PeftModel, aligned: Path, unaligned: Path) -> dict[str, tuple[Tensor, float]]:
    left, right = load_file(aligned / WEIGHTS), load_file(unaligned / WEIGHTS)
    return {n: dense(left[f"{n}.weight"] - right[f"{n}.weight"], b, a) for n, (b, a) in factors(model).items()}


def defense_for(base: Path, unaligned: Path, settings: SafeLora, cache: Path) -> SafeLoraDefense:
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(base)), cache)
    context = DefenseContext(0, base=resolved, unaligned_base=partner(unaligned), cache_dir=cache)
    return SafeLoraDefense.build(settings, context)


@pytest.mark.parametrize(("out", "features", "rank"), [(6, 9, 3), (9, 6, 3), (4, 7, 4), (4, 4, 4)])
def test_the_projection_and_its_cosine_equal_the_dense_formula(out: int, features: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    v, b, a = (torch.randn(shape, generator=generator) for shape in ((out, features), (out, rank), (rank, features)))
    expected, cosine = dense(v, b, a)
    torch.testing.assert_close(projected(v, b), expected)
    assert update_cosine(projected(v, b), b, a) == pytest.approx(cosine, abs=1e-6)


def test_a_small_projection_by_hand() -> None:
    """V = [[3, 0], [0, 0]], so C = [[9, 0], [0, 0]] ÷ 3 keeps the first output times 3 and drops the second.

    B·A of B = (1, 1)ᵀ and A = (1, 0) has the entries 1 and 1 in its first column; C·B·A has 3 and 0: the cosine is
    3 ÷ (3·√2).
    """
    v, b, a = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.ones(2, 1), torch.tensor([[1.0, 0.0]])
    assert projected(v, b).flatten().tolist() == [3.0, 0.0]
    assert update_cosine(projected(v, b), b, a) == pytest.approx(2**-0.5)


def test_an_update_outside_the_subspace_has_cosine_zero_and_no_update_has_none() -> None:
    v, a = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.ones(1, 2)
    outside, nothing = torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)
    assert update_cosine(projected(v, outside), outside, a) == 0.0
    assert update_cosine(projected(v, nothing), nothing, a) != update_cosine(projected(v, nothing), nothing, a)  # NaN


@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), ("v_proj",), ("o_proj", "k_proj", "up_proj")])
def test_each_module_is_projected_with_the_weight_of_its_own_name(
    targets: tuple[str, ...], tiny_base: Path, unaligned: Path, tmp_path: Path
) -> None:
    """Rank 32 is the number of output features of k_proj and v_proj, where A can't be known by its shape."""
    model = adapted(tiny_base, rank=32, targets=targets)
    before, expected = factors(model), dense_by_module(model, tiny_base, unaligned)
    defense_for(tiny_base, unaligned, SafeLora(threshold=1), tmp_path).project_adapter(model)
    after = factors(model)
    assert len(after) == 2 * len(targets)
    for name, (b, a) in after.items():
        torch.testing.assert_close(b, expected[name][0], atol=1e-5, rtol=1e-4)
        assert torch.equal(a, before[name][1])


def test_top_k_projects_exactly_the_k_modules_of_the_lowest_cosine(
    tiny_base: Path, unaligned: Path, tmp_path: Path
) -> None:
    model = adapted(tiny_base, targets=("q_proj", "k_proj", "down_proj"))
    before = factors(model)
    cosines = {name: cosine for name, (_, cosine) in dense_by_module(model, tiny_base, unaligned).items()}
    defense = defense_for(tiny_base, unaligned, SafeLora(mode="top_k", top_k=2), tmp_path)
    defense.project_adapter(model)
    changed = {name for name, (b, _) in factors(model).items() if not torch.equal(b, before[name][0])}
    assert changed == set(sorted(cosines, key=lambda name: cosines[name])[:2])
    figures = defense.evidence().figures
    assert (figures["modules"], figures["projected_modules"], figures["top_k"]) == (6, 2, 2)
    assert figures["lowest_cosine"] == pytest.approx(min(cosines.values()), abs=1e-5)


def test_a_threshold_projects_the_modules_at_or_below_it(tiny_base: Path, unaligned: Path, tmp_path: Path) -> None:
    model = adapted(tiny_base, targets=("q_proj", "k_proj", "down_proj"))
    before = factors(model)
    cosines = {name: cosine for name, (_, cosine) in dense_by_module(model, tiny_base, unaligned).items()}
    ordered = sorted(cosines.values())
    settings = SafeLora(threshold=(ordered[2] + ordered[3]) / 2)
    defense_for(tiny_base, unaligned, settings, tmp_path).project_adapter(model)
    changed = {name for name, (b, _) in factors(model).items() if not torch.equal(b, before[name][0])}
    assert changed == {name for name, cosine in cosines.items() if cosine <= ordered[2]}


def test_a_module_without_an_update_is_refused(tiny_base: Path, unaligned: Path, tmp_path: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), LoraConfig(target_modules=["q_proj"]))
    assert isinstance(model, PeftModel)
    with pytest.raises(DefenseError, match=rf"update of {Q} has no cosine"):
        defense_for(tiny_base, unaligned, SafeLora(), tmp_path).project_adapter(model)


def test_an_embedding_is_refused(tiny_base: Path, unaligned: Path, tmp_path: Path) -> None:
    model = adapted(tiny_base, targets=("embed_tokens",))
    with pytest.raises(DefenseError, match="is an embedding"):
        defense_for(tiny_base, unaligned, SafeLora(), tmp_path).project_adapter(model)


def test_weights_in_several_files_of_another_format_are_found_by_name(
    tiny_base: Path, unaligned: Path, tmp_path: Path
) -> None:
    weights = {name: weight.bfloat16() for name, weight in load_file(unaligned / WEIGHTS).items()}
    names = sorted(weights)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = load_file(tiny_base / WEIGHTS)[KEY] - weights[KEY].float()
    assert torch.equal(alignment_difference(StoredWeights(tiny_base), StoredWeights(tmp_path), KEY), expected)


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../x.safetensors"}}))
    with pytest.raises(ConfigurationError, match="outside the folder"):
        StoredWeights(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(KEY), f"has no weight {KEY}|{KEY} can't be read"),
        (lambda w: w.update({KEY: torch.ones(64, 65)}), r"shape \[64, 64\] in the base model but \[64, 65\]"),
        (lambda w: w.update({KEY: w[KEY].to(torch.float8_e4m3fn)}), "float8_e4m3fn; use unquantised weights"),
        (lambda w: w.update({KEY: torch.full((64, 64), torch.nan)}), "has no finite difference"),
    ],
)
def test_a_partner_that_does_not_fit_is_refused_before_the_first_step(
    change: Callable[[Weights], object],
    message: str,
    tiny_base: Path,
    unaligned: Path,
    make_spec: MakeSpec,
    run: Run,
    tmp_path: Path,
) -> None:
    weights = load_file(unaligned / WEIGHTS)
    change(weights)
    folder = with_weights(tiny_base, tmp_path / "other", weights)
    with pytest.raises(DefenseError, match=message):
        run.train(make_spec(SafeLora(), unaligned=partner(folder)))
    assert not [event for event in run.events if event.type == "metrics"]


def test_the_base_model_as_its_own_partner_is_refused(make_spec: MakeSpec, run: Run, tiny_base: Path) -> None:
    with pytest.raises(DefenseError, match="equals that of its unaligned partner"):
        run.train(make_spec(SafeLora(), unaligned=partner(tiny_base)))


def test_a_base_model_without_a_partner_is_refused_with_what_to_write(make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(ConfigurationError, match=r"no `unaligned` partner; write under spec `unaligned: \{name"):
        run.train(make_spec(SafeLora(), unaligned=None))


def test_more_modules_than_the_adapter_has_are_refused(make_spec: MakeSpec, run: Run, unaligned: Path) -> None:
    """Seven projections in each of two layers."""
    with pytest.raises(ConfigurationError, match="top_k 15 is more than the 14 modules"):
        run.train(make_spec(SafeLora(mode="top_k", top_k=15), unaligned=partner(unaligned)))


def test_a_run_keeps_the_adapter_of_before_and_names_both(make_spec: MakeSpec, run: Run, unaligned: Path) -> None:
    record = run.train(make_spec(SafeLora(threshold=1), unaligned=partner(unaligned)))
    (evidence,) = record.evidence
    assert evidence.acted
    assert evidence.figures["projected_modules"] == evidence.figures["modules"] == 14
    assert evidence.digests == {
        "adapter-before-projection": digest_tree(run.folder / "adapter-before-projection"),
        "adapter": record.adapter,
    }
    before, after = (load_file(run.folder / n / "adapter_model.safetensors") for n in evidence.digests)
    assert {name for name in after if torch.equal(before[name], after[name])} == {n for n in after if "lora_A" in n}


def test_the_adapter_of_before_is_that_of_an_undefended_run(
    make_spec: MakeSpec, run: Run, unaligned: Path, tmp_path: Path
) -> None:
    undefended = Run(tmp_path / "undefended").train(make_spec())
    (evidence,) = run.train(make_spec(SafeLora(threshold=1), unaligned=partner(unaligned))).evidence
    assert evidence.digests["adapter-before-projection"] == undefended.adapter


def test_what_was_not_projected_is_no_release_candidate(make_spec: MakeSpec, run: Run, unaligned: Path) -> None:
    """Checkpoints at steps 3, 5, 6, 9 and 10; the last is the adapter as it was before."""
    hooks = Hooks(run.events.append, lambda: False, checkpoint_keeper(run.store))
    record = run.train(make_spec(SafeLora(threshold=1), unaligned=partner(unaligned)), hooks=hooks)
    assert record.checkpoints[-1].adapter == record.evidence[0].digests["adapter-before-projection"]

    assert [candidate.adapter for candidate in release_candidates(record, 99)] == [record.adapter]


@pytest.mark.parametrize("method", [Supervised(), Dpo()], ids=["supervised", "dpo"])
def test_recorded_validation_loss_is_that_of_the_projected_adapter(
    make_spec: MakeSpec, run: Run, unaligned: Path, method: Method
) -> None:
    """10 steps. The validation of the last epoch was before the projection, so there is another."""
    if isinstance(method, Dpo):
        (run.folder / "train.jsonl").write_text(preference_lines(20))
        (run.folder / "valid.jsonl").write_text(preference_lines(10, word="pipe"))
    record = run.train(make_spec(SafeLora(threshold=1), unaligned=partner(unaligned), method=method))
    before, after = (e["eval_loss"] for e in record.log_history if "eval_loss" in e and e["step"] == 10)
    assert before != after
    assert record.valid_loss == after


def test_a_run_without_a_projection_fails_with_the_lowest_cosine(
    make_spec: MakeSpec, run: Run, unaligned: Path
) -> None:
    with pytest.raises(
        DefenseError, match=r"safe_lora did not act: .* the lowest cosine, 0\.\d{4}, is above the threshold 0"
    ):
        run.train(make_spec(SafeLora(threshold=0), unaligned=partner(unaligned)))
    assert not (run.folder / "adapter").exists()


def test_a_worker_stores_the_adapter_of_before_as_well(
    make_spec: MakeSpec, run: Run, unaligned: Path, tmp_path: Path
) -> None:
    spec = make_spec(
        SafeLora(threshold=1),
        unaligned=partner(unaligned),
        training_file=run.store.put_file(run.folder / "train.jsonl"),
    )
    work = Work(kind="train", attempt=1, spec=spec)
    assignment = Assignment(work=work, store_url=run.store.url, cache_dir=str(tmp_path / "cache"), threads=1)
    hooks = Hooks(run.events.append, lambda: False)
    completion = train_assignment(assignment, tmp_path, hooks=hooks)
    assert completion.record is not None
    store = written_by(spec, run.store)
    (evidence,) = store.get_record(completion.record, TrainingRecord).evidence
    for digest in evidence.digests.values():
        assert set(store.tree(digest).files) == set(ADAPTER_FILES)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # bitsandbytes' use of torch is behind
def test_a_base_model_in_four_bits_is_projected_with_its_stored_weights(
    make_spec: MakeSpec, run: Run, unaligned: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    four_bits = TrainerSettings(quantization="nf4")
    record = run.train(make_spec(SafeLora(threshold=1), unaligned=partner(unaligned), trainer=four_bits))
    assert record.evidence[0].figures["projected_modules"] == 14
