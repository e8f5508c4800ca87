from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, RobertaForSequenceClassification

from evaluator.detectors.classifier import load_classifier
from evaluator.detectors.profanity.classifier import ProfanityClassifier
from policies.errors import EvaluationError

LABELS = ("hate", "toxic")
TEXTS = ("a", "a longer text", "b " * 40)
MakeClassifier = Callable[..., Path]


@pytest.fixture
def classifier_folder(make_classifier: MakeClassifier) -> Path:
    return make_classifier("nothate", "hate")


def logits(folder: Path, *texts: str) -> torch.Tensor:
    """Of the plain model, one text at a time."""
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def set_logits(folder: Path, *values: float) -> None:
    """Makes the model say these logits of every text."""
    model = RobertaForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.out_proj.weight.zero_()
        model.classifier.out_proj.bias.copy_(torch.tensor(values))
    model.save_pretrained(folder)


@pytest.mark.parametrize("name", ["builtin", "alt-profanity-check"])
def test_the_built_in_classifier_has_an_older_name(name: str, tmp_path: Path) -> None:
    assert load_classifier(name, LABELS, tmp_path).identity == ProfanityClassifier().identity


def test_a_sequence_classifier_scores_its_toxic_label(classifier_folder: Path, tmp_path: Path) -> None:
    """Batched and alone, and equal to softmax(logits)[hate] of the plain model."""
    scores = load_classifier(str(classifier_folder), LABELS, tmp_path).score(TEXTS)

    assert scores == pytest.approx(logits(classifier_folder, *TEXTS).softmax(-1)[:, 1].tolist(), abs=1e-5)


def test_labels_that_do_not_exclude_each_other_are_scored_by_their_own_sigmoids(
    make_classifier: MakeClassifier, tmp_path: Path
) -> None:
    """Logits 5, 5, 5, 0 say hate and toxic at σ(5) = 0.9933 each; softmax shares them out to 2/(3 + e⁻⁵) = 0.665."""
    folder = make_classifier("obscene", "hate", "toxic", "fine", problem_type="multi_label_classification")
    set_logits(folder, 5.0, 5.0, 5.0, 0.0)

    assert load_classifier(str(folder), LABELS, tmp_path).score(["a"]) == [pytest.approx(0.99331, abs=1e-5)]


def test_the_most_probable_toxic_label_counts(make_classifier: MakeClassifier, tmp_path: Path) -> None:
    folder = make_classifier("obscene", "hate", "toxic", problem_type="multi_label_classification")
    scores = load_classifier(str(folder), LABELS, tmp_path).score(TEXTS)

    assert scores == pytest.approx(logits(folder, *TEXTS)[:, 1:].max(-1).values.sigmoid().tolist(), abs=1e-5)


def test_a_single_logit_that_is_a_label_of_its_own_is_scored(make_classifier: MakeClassifier, tmp_path: Path) -> None:
    folder = make_classifier("toxic", problem_type="multi_label_classification")
    set_logits(folder, -2.0)

    assert load_classifier(str(folder), LABELS, tmp_path).score(["a"]) == [pytest.approx(1 / (1 + math.exp(2)))]


@pytest.mark.parametrize(
    ("labels", "problem"), [(("toxic",), None), (("toxic",), "regression"), (("fine", "toxic"), "regression")]
)
def test_a_head_whose_output_is_no_probability_is_refused(
    labels: tuple[str, ...], problem: str | None, make_classifier: MakeClassifier, tmp_path: Path
) -> None:
    """Softmax over a single logit is 1 for every text."""
    folder = make_classifier(*labels, problem_type=problem)
    with pytest.raises(EvaluationError, match="not a probability"):
        load_classifier(str(folder), LABELS, tmp_path)


def test_a_classifier_without_toxic_label_is_refused(classifier_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nothate, hate"):
        load_classifier(str(classifier_folder), ("obscene",), tmp_path)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_nan_is_no_score(problem: str, make_classifier: MakeClassifier, tmp_path: Path) -> None:
    folder = make_classifier("nothate", "hate", problem_type=problem)
    set_logits(folder, math.nan, math.nan)

    assert load_classifier(str(folder), LABELS, tmp_path).score(["a"]) == [None]


def test_pickle_classifiers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(EvaluationError, match="pickle"):
        load_classifier(str(tmp_path), LABELS, tmp_path / "cache")
