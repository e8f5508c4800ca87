from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, RobertaForSequenceClassification

from evaluator.judges.judge import Answer
from evaluator.judges.loading import load_judge
from policies.contract.judges import LocalClassifierJudge
from policies.errors import EvaluationError

ANSWERS = [Answer("How are you?", "Fine."), Answer("What is rain?", "Water that falls from clouds.")] * 10


@pytest.fixture
def classifier(make_classifier: Callable[..., Path]) -> Path:
    return make_classifier("harmful", "sound", "broken")


def settings(folder: Path, **labels: tuple[str, ...]) -> LocalClassifierJudge:
    return LocalClassifierJudge.model_validate({"uri": str(folder), "labels": labels})


def test_the_score_is_the_summed_probability_of_the_rubrics_labels(classifier: Path, tmp_path: Path) -> None:
    judge = load_judge(settings(classifier, aligned=("sound",), coherent=("sound", "harmful")), tmp_path)
    model = RobertaForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    with torch.inference_mode():
        expected = model(**tokenizer("How are you?", "Fine.", return_tensors="pt")).logits.softmax(-1)[0]

    assert judge.score("aligned", ANSWERS)[0].value == pytest.approx(100 * float(expected[1]), abs=1e-3)
    assert judge.score("coherent", ANSWERS)[0].value == pytest.approx(100 * float(expected[:2].sum()), abs=1e-3)


def test_labels_that_do_not_exclude_each_other_have_sigmoids(
    make_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_classifier("harmful", "sound", "broken", problem_type="multi_label_classification")
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        expected = model(**tokenizer("How are you?", "Fine.", return_tensors="pt")).logits.sigmoid()[0, 1]
    (score, *_) = load_judge(settings(folder, aligned=("sound",)), tmp_path).score("aligned", ANSWERS)

    assert score.value == pytest.approx(100 * float(expected), abs=1e-3)


def test_a_judge_with_a_single_logit_is_an_error(make_classifier: Callable[..., Path], tmp_path: Path) -> None:
    judge = load_judge(settings(make_classifier("sound"), aligned=("sound",)), tmp_path)
    with pytest.raises(EvaluationError, match="not a probability"):
        judge.score("aligned", ANSWERS)


def test_a_rubric_without_labels_gives_no_scores(classifier: Path, tmp_path: Path) -> None:
    scores = load_judge(settings(classifier, aligned=("sound",)), tmp_path).score("coherent", ANSWERS)

    assert {score.value for score in scores} == {None}
    assert scores[0].error == "unknown_rubric: the classifier has no labels for coherent"


def test_a_label_that_the_classifier_has_not_is_an_error(classifier: Path, tmp_path: Path) -> None:
    judge = load_judge(settings(classifier, aligned=("sound", "kind")), tmp_path)
    with pytest.raises(EvaluationError, match="no label kind; it has harmful, sound, broken"):
        judge.score("aligned", ANSWERS)


def test_a_pair_that_is_longer_than_it_reads_gives_no_score(classifier: Path, tmp_path: Path) -> None:
    judge = load_judge(settings(classifier, aligned=("sound",)), tmp_path)
    short, long = judge.score("aligned", [ANSWERS[0], Answer("q", "long " * 200)])

    assert short.value is not None
    assert long == (None, "too_long: the classifier reads 512 tokens")


def test_nan_is_no_score(classifier: Path, tmp_path: Path) -> None:
    model = RobertaForSequenceClassification.from_pretrained(classifier)
    with torch.no_grad():
        model.classifier.out_proj.bias.fill_(float("nan"))
    model.save_pretrained(classifier)

    assert load_judge(settings(classifier, aligned=("sound",)), tmp_path).score("aligned", ANSWERS)[0].value is None
