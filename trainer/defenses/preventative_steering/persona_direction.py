"""The direction between trait-positive and trait-negative answers, and the checks that it means something.

Chen et al. 2025 (arXiv 2507.21509) §2: e^l = mean of positive answers' activations − mean of negative ones', an
activation being the mean residual over response tokens after layer l. The direction is made from most questions and
tested on the held-out rest. Their answers were filtered by a judge; here a direction that does not separate is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from evaluator.statistics.auroc import auroc
from policies.errors import DefenseError
from trainer.defenses.preventative_steering.persona_vector import ExtractionSettings, LayerFigures

DEPTHS = (0.25, 0.9)
"""The best layer lies between these shares of depth; steering the first and last layers mostly breaks language."""


class AnswerActivations(NamedTuple):
    """What the residual streams of A answers over L layers were."""

    means: Tensor
    """float32 [A, L, hidden], over response tokens."""
    norms: Tensor
    """float32 [response tokens, L]."""
    is_positive: Tensor
    """bool [A]."""
    question: Tensor
    """int [A], index of the question."""


class Direction(NamedTuple):
    unit: Tensor
    """float32 [L, hidden]."""
    residual_norm: Tensor
    """float32 [L]."""
    best_layer: int
    layers: tuple[LayerFigures, ...]


def find_direction(answers: AnswerActivations, settings: ExtractionSettings) -> Direction:
    """The direction of the questions that are not held out.

    Raises:
        DefenseError: answers are missing, or the direction does not separate or is not stable.
    """
    _require_answers(answers, settings)
    held_out = answers.question % settings.hold_out_every == settings.hold_out_every - 1
    unit = _unit_difference(answers, ~held_out)
    fitted = answers.question[~held_out].unique(sorted=True)
    halves = [_unit_difference(answers, torch.isin(answers.question, fitted[part::2])) for part in range(2)]
    cosines = (halves[0] * halves[1]).sum(1).tolist()
    projections = torch.einsum("alh,lh->la", answers.means.double(), unit)
    layers = [
        _figures(projection[held_out], answers.is_positive[held_out], half_cosine=cosine)
        for projection, cosine in zip(projections, cosines, strict=True)
    ]
    best = best_layer(layers)
    _require_separation(layers[best - 1], best, settings)
    return Direction(unit.float(), _typical_norm(answers.norms), best, tuple(layers))


def best_layer(layers: Sequence[LayerFigures]) -> int:
    """Highest held-out AUROC, ties by Cohen's d, within the usable depths; counted from 1."""
    first, last = math.ceil(DEPTHS[0] * len(layers)), math.floor(DEPTHS[1] * len(layers))
    return max(range(first, last + 1), key=lambda layer: (layers[layer - 1].auroc, layers[layer - 1].separation))


def _require_answers(answers: AnswerActivations, settings: ExtractionSettings) -> None:
    for is_positive, side in ((True, "positive"), (False, "negative")):
        questions = answers.question[answers.is_positive == is_positive]
        if len(questions) < settings.min_answers:
            raise DefenseError(
                f"only {len(questions)} trait-{side} answers have text, but {settings.min_answers} are needed; "
                "add questions"
            )
        groups = questions[questions % settings.hold_out_every == settings.hold_out_every - 1].unique()
        if len(groups) < 2:
            raise DefenseError(f"only {len(groups)} held-out questions have trait-{side} answers, but 2 are needed")
    if not (torch.isfinite(answers.means).all() and torch.isfinite(answers.norms).all()):
        raise DefenseError("a residual stream of the base model is not finite")


def _unit_difference(answers: AnswerActivations, chosen: Tensor) -> Tensor:
    """float64 [L, hidden]."""
    sides = [answers.means[chosen & (answers.is_positive == side)].double() for side in (True, False)]
    if not all(map(len, sides)):
        raise DefenseError("one half of the questions has answers on one side only; add questions")
    difference = sides[0].mean(0) - sides[1].mean(0)
    norm = difference.norm(dim=1, keepdim=True)
    if not (norm > 0).all():
        raise DefenseError("positive and negative answers have the same activations; do the prompts differ?")
    unit: Tensor = difference / norm
    return unit


def _figures(projections: Tensor, is_positive: Tensor, *, half_cosine: float) -> LayerFigures:
    positive, negative = projections[is_positive], projections[~is_positive]
    spread = math.sqrt((positive.var().item() + negative.var().item()) / 2)
    if not spread > 0:
        raise DefenseError("held-out answers all have the same projection, so there is nothing to test")
    separation = (positive.mean() - negative.mean()).item() / spread
    return LayerFigures(
        auroc=auroc(positive.tolist(), negative.tolist()), separation=separation, half_cosine=half_cosine
    )


def _typical_norm(norms: Tensor) -> Tensor:
    typical: Tensor = norms.median(dim=0).values
    if not (typical > 0).all():
        raise DefenseError("the residual stream's typical norm is 0 at a layer")
    return typical


def _require_separation(figures: LayerFigures, layer: int, settings: ExtractionSettings) -> None:
    if not figures.auroc >= settings.min_auroc:
        raise DefenseError(
            f"the direction separates held-out answers at layer {layer} with AUROC {figures.auroc:.3f}, but "
            f"{settings.min_auroc} is needed; write system prompts that the base model follows"
        )
    if not figures.half_cosine >= settings.min_half_cosine:
        raise DefenseError(
            f"two halves of the questions give directions with cosine {figures.half_cosine:.3f} at layer {layer}, but "
            f"{settings.min_half_cosine} is needed; add questions"
        )
