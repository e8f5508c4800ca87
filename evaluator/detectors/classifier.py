"""Toxicity classifiers: one embedded, and any sequence classifier in safetensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from evaluator.models.base_models import resolve_base_model
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError, EvaluationError

EMBEDDED = "alt-profanity-check"
CLASSIFIER_BATCH = 16
CLASSIFIER_TOKENS = 512


class ToxicityClassifier(Protocol):
    identity: str
    """Changes whenever scores could change."""

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Probability that each text is toxic; None where there is no finite answer."""


class EmbeddedClassifier:
    """The linear model of the alt-profanity-check package."""

    def __init__(self) -> None:
        from importlib.metadata import version

        import profanity_check

        self._predict: Callable[[list[str]], Sequence[float]] = profanity_check.predict_prob
        self.identity = f"{EMBEDDED} {version(EMBEDDED)}"

    def score(self, texts: Sequence[str]) -> list[float | None]:
        return [_probability(value) for value in self._predict(list(texts))] if texts else []


class SequenceClassifier:
    """A transformers sequence classifier; the toxic probability is the summed probability of its toxic labels."""

    def __init__(self, folder: Path, identity: str, toxic_labels: Sequence[str]) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"classifier {folder.name} can't be loaded: {error}") from error
        self._model.eval()
        labels: dict[int, str] = self._model.config.id2label
        self._toxic = [index for index, label in labels.items() if label in toxic_labels]
        if not self._toxic:
            known = ", ".join(labels.values())
            raise EvaluationError(f"classifier has labels {known}, none of the toxic {', '.join(toxic_labels)}")
        self.identity = identity

    def score(self, texts: Sequence[str]) -> list[float | None]:
        scores: dict[int, float | None] = {}
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), CLASSIFIER_BATCH):
            batch = order[start : start + CLASSIFIER_BATCH]
            scores |= dict(zip(batch, self._score_batch([texts[index] for index in batch]), strict=True))
        return [scores[index] for index in range(len(texts))]

    def _score_batch(self, texts: list[str]) -> list[float | None]:
        import torch

        limit = min(CLASSIFIER_TOKENS, self._tokenizer.model_max_length)
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            probabilities = self._model(**inputs).logits.float().softmax(-1)
        return [_probability(value) for value in probabilities[:, self._toxic].sum(-1).tolist()]


def load_classifier(name: str, toxic_labels: Sequence[str], cache_dir: Path) -> ToxicityClassifier:
    """The classifier that a policy names: `alt-profanity-check`, `hf://owner/name@revision` or a local folder."""
    if name == EMBEDDED:
        return EmbeddedClassifier()
    try:
        resolved = resolve_base_model(BaseModelRef(name="classifier", uri=name), cache_dir)
    except ConfigurationError as error:
        raise EvaluationError(f"toxicity classifier {name!r}: {error}") from error
    return SequenceClassifier(resolved.folder, f"{resolved.digest} {','.join(toxic_labels)}", toxic_labels)


def _probability(value: float) -> float | None:
    """A finite probability, rounding forgiven; anything else is no answer."""
    value = float(value)
    return min(1.0, max(0.0, value)) if math.isfinite(value) and -1e-6 <= value <= 1 + 1e-6 else None
