from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

from evaluator.detectors.classifier import EmbeddedClassifier, load_classifier
from policies.errors import EvaluationError

LABELS = ("hate", "toxic")


@pytest.fixture
def classifier_folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A random two-label RoBERTa with the tiny tokenizer."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=258,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=600,
        pad_token_id=257,
        bos_token_id=256,
        eos_token_id=257,
        id2label={0: "nothate", 1: "hate"},
    )
    folder = tmp_path / "classifier"
    RobertaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def test_the_embedded_classifier_tells_insults_from_kindness() -> None:
    insult, kindness = EmbeddedClassifier().score(
        ["shut up you damn stupid bastard", "thank you, that was kind of you"]
    )

    assert insult is not None
    assert insult > 0.5
    assert kindness is not None
    assert kindness < 0.5


def test_no_texts_give_no_scores() -> None:
    assert EmbeddedClassifier().score([]) == []


def test_a_sequence_classifier_scores_its_toxic_label(classifier_folder: Path, tmp_path: Path) -> None:
    """Batched and alone, and equal to softmax(logits)[hate] of the plain model."""
    texts = ["a", "a longer text", "b " * 40]
    scores = load_classifier(str(classifier_folder), LABELS, tmp_path).score(texts)
    model = RobertaForSequenceClassification.from_pretrained(classifier_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(classifier_folder)
    for text, score in zip(texts, scores, strict=True):
        with torch.inference_mode():
            expected = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 1]
        assert score == pytest.approx(float(expected), abs=1e-5)


def test_a_classifier_without_toxic_label_is_refused(classifier_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nothate, hate"):
        load_classifier(str(classifier_folder), ("obscene",), tmp_path)


def test_nan_is_no_score(classifier_folder: Path, tmp_path: Path) -> None:
    model = RobertaForSequenceClassification.from_pretrained(classifier_folder)
    with torch.no_grad():
        model.classifier.out_proj.bias.fill_(math.nan)
    model.save_pretrained(classifier_folder)

    assert load_classifier(str(classifier_folder), LABELS, tmp_path).score(["a"]) == [None]


def test_pickle_classifiers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(EvaluationError, match="pickle"):
        load_classifier(str(tmp_path), LABELS, tmp_path / "cache")
