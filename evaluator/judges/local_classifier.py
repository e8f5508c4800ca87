"""A sequence classifier of question and answer as judge: safetensors only, as every classifier here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version

from evaluator.backends.protocol import Advance, silent
from evaluator.detectors.classifier import CLASSIFIER_BATCH, CLASSIFIER_TOKENS, SCORING_VERSION, SequenceClassifier
from evaluator.judges.judge import TOO_LONG, Answer, Score
from evaluator.judges.rubric import neutralise
from evaluator.models.base_models import ResolvedBase
from policies.contract.artifacts import canonical_json
from policies.contract.judges import Rubric
from policies.errors import EvaluationError

UNKNOWN_RUBRIC = "unknown_rubric"


class LocalClassifierJudge:
    """Score = 100 × probability of a rubric's labels; loaded when the first answer comes."""

    def __init__(self, resolved: ResolvedBase, labels: Mapping[Rubric, tuple[str, ...]]) -> None:
        self._resolved, self._labels = resolved, labels
        told = canonical_json({rubric: list(names) for rubric, names in labels.items()}).decode()
        engine = " ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
        self.identity = f"local_classifier {resolved.digest} {engine} scoring {SCORING_VERSION} {told}"

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        if rubric not in self._labels:
            return [Score(None, f"{UNKNOWN_RUBRIC}: the classifier has no labels for {rubric}")] * len(answers)
        scores: list[Score] = []
        for start in range(0, len(answers), CLASSIFIER_BATCH):
            scores += self._pairs.score_pairs(answers[start : start + CLASSIFIER_BATCH], self._labels[rubric])
            advance(len(scores), len(answers))
        return scores

    @cached_property
    def _pairs(self) -> _PairClassifier:
        return _PairClassifier(self._resolved, tuple({name for names in self._labels.values() for name in names}))


class _PairClassifier(SequenceClassifier):
    """The classifier of texts, asked about pairs."""

    def __init__(self, resolved: ResolvedBase, labels: Sequence[str]) -> None:
        super().__init__(resolved.folder, resolved.digest, labels)
        names: dict[int, str] = self._model.config.id2label
        self._index = {name: index for index, name in names.items()}
        if unknown := sorted({*labels} - {*self._index}):
            raise EvaluationError(f"the judge's classifier has no label {unknown[0]}; it has {', '.join(self._index)}")

    def score_pairs(self, answers: Sequence[Answer], labels: Sequence[str]) -> list[Score]:
        """One score a pair; a pair that is longer than the classifier reads has none."""
        limit = min(CLASSIFIER_TOKENS, self._tokenizer.model_max_length)
        controls = self._tokenizer.all_special_tokens
        questions = [neutralise(answer.question, controls) for answer in answers]
        texts = [neutralise(answer.answer, controls) for answer in answers]
        whole = self._tokenizer(questions, texts)["input_ids"]
        inputs = self._tokenizer(questions, texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        shares = self._probabilities(inputs, [self._index[label] for label in labels])
        return [
            _score(share) if len(ids) <= limit else Score(None, f"{TOO_LONG}: the classifier reads {limit} tokens")
            for share, ids in zip(shares, whole, strict=True)
        ]


def _score(share: float) -> Score:
    is_probability = -1e-6 <= share <= 1 + 1e-6  # false for NaN
    return Score(100 * min(1.0, max(0.0, share))) if is_probability else Score(None, "the classifier's output is NaN")
