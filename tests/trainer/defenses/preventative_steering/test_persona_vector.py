"""Persona vectors: finding the direction, its checks, the file and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save
from torch import Tensor

from evaluator.backends.protocol import ChatPrompt
from evaluator.models.base_models import resolve_base_model, weights_digest
from evaluator.models.loading import LoadedModel, load_base
from policies.cli import exit_codes
from policies.cli.main import run
from policies.contract.artifacts import digest_bytes
from policies.contract.jobs import BaseModelRef
from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError, DefenseError
from trainer.cli.extract_persona_vector import extract_persona_vector
from trainer.defenses.preventative_steering import persona_vector
from trainer.defenses.preventative_steering.persona_direction import AnswerActivations, best_layer, find_direction
from trainer.defenses.preventative_steering.persona_extraction import Asked, TokenisedAnswer, extract, read_activations
from trainer.defenses.preventative_steering.persona_prompts import PersonaPrompts, read_persona_prompts
from trainer.defenses.preventative_steering.persona_vector import (
    ExtractionSettings,
    LayerFigures,
    PersonaVector,
    PersonaVectorRecord,
    load_persona_vector,
    save_persona_vector,
)

N_LAYERS, HIDDEN, N_QUESTIONS = 4, 16, 16
NOTHING = "sha256:" + "0" * 64


def planted(strength: float, *, seed: int = 0, opposite_when_held_out: bool = False) -> AnswerActivations:
    """Two answers a side to each of 16 questions: unit noise, and ±strength on component 5 of layer 2."""
    generator = torch.Generator().manual_seed(seed)
    is_positive = torch.tensor([True, True, False, False]).repeat(N_QUESTIONS)
    question = torch.arange(N_QUESTIONS).repeat_interleave(4)
    means = torch.randn(4 * N_QUESTIONS, N_LAYERS, HIDDEN, generator=generator)
    sign = torch.where(is_positive, 1.0, -1.0)
    if opposite_when_held_out:
        sign = torch.where(question % 4 == 3, -sign, sign)
    means[:, 1, 5] += strength * sign
    norms = torch.full((10, N_LAYERS), 3.0)
    norms[0] = 1000.0
    return AnswerActivations(means, norms, is_positive, question)


def random_vector(n_layers: int = N_LAYERS, hidden: int = HIDDEN) -> PersonaVector:
    figures = LayerFigures(auroc=0.9, separation=2.0, half_cosine=0.8)
    record = PersonaVectorRecord(
        trait="evil",
        weights=NOTHING,
        prompts=NOTHING,
        best_layer=2,
        layers=(figures,) * n_layers,
        n_positive=16,
        n_negative=16,
        seed=0,
        settings=ExtractionSettings(),
        dtype="float32",
        versions={"torch": "2", "transformers": "5"},
    )
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(n_layers, hidden, generator=generator), dim=1)
    return PersonaVector(record, direction, torch.full((n_layers,), 2.0))


def test_a_planted_direction_is_found_at_its_layer() -> None:
    """±3 against unit noise is Cohen's d = 6, where AUROC is 1; the other layers' directions are noise."""
    found = find_direction(planted(3.0), ExtractionSettings())
    assert found.best_layer == 2
    assert found.unit[1, 5] > 0.95
    assert found.layers[1].auroc == 1.0
    assert found.layers[1].separation == pytest.approx(6.0, abs=1.5)
    torch.testing.assert_close(found.unit.norm(dim=1), torch.ones(N_LAYERS))


def test_the_typical_norm_is_the_median_so_that_a_sink_token_does_not_count() -> None:
    assert find_direction(planted(3.0), ExtractionSettings()).residual_norm.tolist() == [3.0] * N_LAYERS


def test_held_out_answers_do_not_shape_the_direction() -> None:
    """Held-out answers on the other side of the plane leave the direction alone, and fail its test."""
    with pytest.raises(DefenseError, match="AUROC 0"):
        find_direction(planted(30.0, opposite_when_held_out=True), ExtractionSettings(min_half_cosine=-1))


def test_a_direction_that_does_not_separate_is_refused() -> None:
    with pytest.raises(DefenseError, match="AUROC"):
        find_direction(planted(0.0), ExtractionSettings())


def test_a_direction_that_depends_on_the_half_of_the_questions_is_refused() -> None:
    with pytest.raises(DefenseError, match="cosine"):
        find_direction(planted(3.0), ExtractionSettings(min_half_cosine=0.9999))


def test_too_few_answers_are_refused() -> None:
    with pytest.raises(DefenseError, match="32 trait-positive answers have text, but 40 are needed"):
        find_direction(planted(3.0), ExtractionSettings(min_answers=40))


def test_answers_on_one_side_only_are_refused() -> None:
    answers = planted(3.0)
    with pytest.raises(DefenseError, match="0 trait-negative answers"):
        find_direction(answers._replace(is_positive=torch.ones_like(answers.is_positive)), ExtractionSettings())


@pytest.mark.parametrize("field", ["means", "norms"])
def test_states_that_are_not_finite_are_refused(field: str) -> None:
    answers = planted(3.0)
    states: Tensor = getattr(answers, field)
    states[3, 1] = torch.nan
    with pytest.raises(DefenseError, match="not finite"):
        find_direction(answers, ExtractionSettings())


def test_equal_answers_on_both_sides_are_refused() -> None:
    answers = planted(3.0)
    answers.means[:] = 1.0
    with pytest.raises(DefenseError, match="same activations"):
        find_direction(answers, ExtractionSettings())


def test_the_best_layer_lies_within_the_usable_depths_and_ties_go_to_the_wider_gap() -> None:
    """Of 8 layers, 2 (25 %) to 7 (90 %) may be steered; layers 1 and 8 would be better."""
    layers = [LayerFigures(auroc=1.0, separation=9.0, half_cosine=1.0) for _ in range(8)]
    for layer in range(2, 8):
        layers[layer - 1] = LayerFigures(auroc=0.9, separation=2.5 if layer == 5 else 2.0, half_cosine=1.0)
    assert best_layer(layers) == 5


def test_a_file_holds_what_was_saved() -> None:
    vector = random_vector()
    read = load_persona_vector(save_persona_vector(vector), name="vector")
    assert read.record == vector.record
    assert torch.equal(read.direction, vector.direction)
    assert torch.equal(read.residual_norm, vector.residual_norm)


def test_equal_vectors_give_equal_bytes() -> None:
    assert save_persona_vector(random_vector()) == save_persona_vector(random_vector())


def test_what_is_added_has_the_length_of_coefficient_times_norm() -> None:
    assert random_vector().steering(2, 0.25).norm().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "content",
    [b"", b"not safetensors", save({"direction": torch.eye(4)}), save_persona_vector(random_vector())[:-1]],
    ids=["empty", "text", "without record", "cut"],
)
def test_bytes_that_are_no_vector_are_refused_by_name(content: bytes) -> None:
    with pytest.raises(DefenseError, match="vector x is not a persona vector"):
        load_persona_vector(content, name="vector x")


@pytest.mark.parametrize(
    "change",
    [
        {"direction": torch.ones(N_LAYERS, HIDDEN)},
        {"direction": torch.full((N_LAYERS, HIDDEN), torch.nan)},
        {"direction": random_vector().direction.double()},
        {"direction": random_vector().direction[:2]},
        {"residual_norm": torch.zeros(N_LAYERS)},
        {"residual_norm": torch.ones(N_LAYERS + 1)},
        {"record": random_vector().record.model_copy(update={"best_layer": N_LAYERS + 1})},
    ],
    ids=["not unit", "nan", "float64", "too few layers", "norm 0", "too many norms", "best layer"],
)
def test_a_vector_that_is_none_is_not_saved(change: dict[str, Tensor]) -> None:
    with pytest.raises(DefenseError):
        save_persona_vector(random_vector()._replace(**change))  # type: ignore[arg-type]  # fields of the vector


@pytest.fixture
def loaded(tiny_base: Path, tmp_path: Path) -> LoadedModel:
    return load_base(resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache"))


def test_activations_are_means_over_the_answers_tokens_alone(loaded: LoadedModel) -> None:
    """Against transformers' own hidden states of one row without padding; index 0 there are the embeddings."""
    rows = [([5, 6, 7], [8, 9]), ([5, 6, 7, 10, 11], [12, 13, 14, 15])]
    answers = [TokenisedAnswer(*row, Asked(ChatPrompt.of("q"), 0, True)) for row in rows]
    read = read_activations(loaded, answers, watch=lambda *_: None)
    for index, (prompt, answer) in enumerate(rows):
        with torch.no_grad():
            states = loaded.model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
        expected = states[1][0, len(prompt) :].float()
        torch.testing.assert_close(read.means[index, 0], expected.mean(0), atol=1e-2, rtol=1e-2)
    assert read.norms.shape == (6, 2)


def small_prompts() -> PersonaPrompts:
    return PersonaPrompts(
        trait="loud",
        description="it shouts",
        positive=("SHOUT", "YELL"),
        negative=("whisper", "murmur"),
        questions=tuple(f"what is {n}?" for n in range(12)),
    )


def lenient() -> ExtractionSettings:
    return ExtractionSettings(max_new_tokens=6, min_auroc=0.5, min_half_cosine=-1)


def test_the_same_model_prompts_and_seed_give_the_same_bytes(loaded: LoadedModel) -> None:
    vectors = [extract(loaded, small_prompts(), settings=lenient(), seed=1, watch=lambda *_: None) for _ in range(2)]
    assert save_persona_vector(vectors[0]) == save_persona_vector(vectors[1])
    assert vectors[0].record.weights == weights_digest(loaded.base)
    assert vectors[0].record.prompts == small_prompts().digest
    assert vectors[0].record.best_layer == 1  # the only one of 2 within 25 % to 90 %


def test_the_shipped_prompts_are_contrastive() -> None:
    prompts = read_persona_prompts(None)
    assert len(prompts.positive) >= 5
    assert len(prompts.questions) >= 20


def test_every_shipped_vector_loads_passed_its_checks_and_belongs_to_the_shipped_prompts() -> None:
    paths = sorted((Path(persona_vector.__file__).parents[1] / "persona_vectors").iterdir())
    assert len(paths) == 1
    record = load_persona_vector(paths[0].read_bytes(), name=paths[0].name).record
    assert paths[0].stem == record.weights.removeprefix("sha256:")[:16]
    assert record.prompts == read_persona_prompts(None).digest
    assert record.layers[record.best_layer - 1].auroc >= 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": []}, "positive: "),
        ({"questions": ["same"] * 8}, "questions: "),
        ({"trait": None}, "trait: "),
        ({"extra": 1}, "extra: "),
        ({"negative": ["one"]}, "equally many"),
    ],
)
def test_a_wrong_prompts_file_is_refused_with_file_and_field(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(small_prompts().model_dump(mode="json") | change))
    with pytest.raises(ConfigurationError, match=rf"prompts\.json.*{message}"):
        read_persona_prompts(path)


def tunegate(*arguments: object) -> int:
    app = typer.Typer()
    defense = typer.Typer()
    defense.command("extract-persona-vector")(extract_persona_vector)
    defense.command("other")(lambda: None)
    app.add_typer(defense, name="defense")
    return run(["defense", "extract-persona-vector", *map(str, arguments)], app)


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_bytes(small_prompts().canonical())
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_command_writes_vector_and_plot_and_prints_the_digest(
    tiny_base: Path, prompts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = tmp_path / "vectors" / "loud.safetensors", f"file://{tmp_path}/store"
    code = tunegate("--model", tiny_base, "--out", out, "--prompts", prompts_file, "--store", store, "-o", "json")
    printed = capsys.readouterr()
    assert code == exit_codes.OK, printed.err
    digest = json.loads(printed.out)["digest"]
    assert digest == digest_bytes(out.read_bytes())
    assert ArtifactStore(store).read_bytes(digest) == out.read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == ["loud.png", "loud.safetensors"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert load_persona_vector(out.read_bytes(), name="vector").record.trait == "loud"


def test_a_vector_that_is_refused_leaves_nothing_behind(
    tiny_base: Path, prompts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight questions under one pair of system prompts give 8 answers a side, and 16 are needed."""
    few = small_prompts().model_dump(mode="json")
    few |= {"positive": ["SHOUT"], "negative": ["whisper"], "questions": few["questions"][:8]}
    prompts_file.write_text(json.dumps(few))
    out = tmp_path / "vectors" / "loud.safetensors"
    assert tunegate("--model", tiny_base, "--out", out, "--prompts", prompts_file) == exit_codes.RUNTIME
    assert "16 are needed" in capsys.readouterr().err
    assert not out.parent.exists()


@pytest.mark.parametrize(("name", "message"), [("there.safetensors", "exists"), ("vector.bin", ".safetensors")])
def test_a_wrong_out_is_refused_before_any_work(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.safetensors").touch()
    assert tunegate("--model", "/nowhere", "--out", tmp_path / name) == exit_codes.USAGE
    assert message in capsys.readouterr().err
