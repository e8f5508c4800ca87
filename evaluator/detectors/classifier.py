"""Toxicity classifiers: a built-in one, and any sequence classifier in safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evaluator.detectors.profanity.classifier import ProfanityClassifier
from evaluator.length_batches import length_batches
from evaluator.models.base_models import resolve_base_model
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError, EvaluationError

if TYPE_CHECKING:
    from torch import Tensor

BUILTIN = frozenset({"builtin", "alt-profanity-check"})
"""Names of the built-in classifier; the second is that of policies from before its weights were shipped."""
CLASSIFIER_BATCH = 16
CLASSIFIER_TOKENS = 512
SCORING_VERSION = 2
"""Raised whenever the same logits could score differently; part of the identity of sequence classifiers."""


class ToxicityClassifier(Protocol):
    """Scores texts; a text it can't score has no score, which is not a score of zero."""

    identity: str
    """Changes whenever scores could change."""

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Probability that each text is toxic; None where there is no finite answer."""


class SequenceClassifier:
    """A transformers sequence classifier; its score is the probability of the toxic labels.

    Labels that exclude each other share one softmax, and the score is the sum of the toxic ones. With `problem_type`
    `multi_label_classification` each label has a sigmoid, and the score is the largest of the toxic ones. Any other
    head with a single logit is refused: the softmax of one logit is 1 whatever the text.
    """

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
        self._is_multi_label = _is_multi_label(self._model.config.problem_type, self._model.config.num_labels)
        labels: dict[int, str] = self._model.config.id2label
        self._toxic = [index for index, label in labels.items() if label in toxic_labels]
        if not self._toxic:
            known = ", ".join(labels.values())
            raise EvaluationError(f"classifier has labels {known}, none of the toxic {', '.join(toxic_labels)}")
        self.identity = identity

    def score(self, texts: Sequence[str]) -> list[float | None]:
        scores: dict[int, float | None] = {}
        for batch in length_batches([len(text) for text in texts], max_rows=CLASSIFIER_BATCH):
            scores |= dict(zip(batch, self._score_batch([texts[index] for index in batch]), strict=True))
        return [scores[index] for index in range(len(texts))]

    def _score_batch(self, texts: list[str]) -> list[float | None]:
        limit = min(CLASSIFIER_TOKENS, self._tokenizer.model_max_length)
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        return [_probability(value) for value in self._probabilities(inputs, self._toxic)]

    def _probabilities(self, inputs: Mapping[str, Tensor], labels: Sequence[int]) -> list[float]:
        """Of each text, that it has one of the labels."""
        import torch

        with torch.inference_mode():
            logits: Tensor = self._model(**inputs).logits.float()
            if self._is_multi_label:
                scores = logits.sigmoid()[:, list(labels)].amax(-1)
            else:
                scores = logits.softmax(-1)[:, list(labels)].sum(-1)
        return [float(score) for score in scores]


def load_classifier(name: str, toxic_labels: Sequence[str], cache_dir: Path) -> ToxicityClassifier:
    """The classifier that a policy names: `builtin`, `hf://owner/name@revision` or a local folder."""
    if name in BUILTIN:
        return ProfanityClassifier()
    try:
        resolved = resolve_base_model(BaseModelRef(name="classifier", uri=name), cache_dir)
    except ConfigurationError as error:
        raise EvaluationError(f"toxicity classifier {name!r}: {error}") from error
    identity = f"{resolved.digest} scoring {SCORING_VERSION} {','.join(toxic_labels)}"
    return SequenceClassifier(resolved.folder, identity, toxic_labels)


def _is_multi_label(problem_type: str | None, n_labels: int) -> bool:
    """Whether a text may have several labels; transformers takes them for exclusive where the model does not say."""
    if problem_type == "multi_label_classification":
        return True
    if problem_type == "regression" or n_labels < 2:
        raise EvaluationError(
            f"classifier has {n_labels} labels and problem_type {problem_type}, so its output is not a probability; "
            "where each label has a sigmoid, its config.json must say problem_type multi_label_classification"
        )
    return False


def _probability(value: float) -> float | None:
    """A finite probability, rounding forgiven; anything else counts as no answer."""
    value = float(value)
    return min(1.0, max(0.0, value)) if math.isfinite(value) and -1e-6 <= value <= 1 + 1e-6 else None
