"""A causal language model beside the evaluator as judge.

It writes nothing: the probability that its reply begins with each number from 0 to 100 is computed exactly, with one
step over the cached prompt for each level of the tree of numbers (`number_tree`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version

import torch
from torch import Tensor
from transformers import DynamicCache

from evaluator.backends.causal_parts import contiguous_output_layer
from evaluator.backends.engines import load_for_transformers
from evaluator.backends.protocol import Advance, ChatPrompt, Choices, silent
from evaluator.backends.rendering import pad_batch, prompt_ids, question_ids
from evaluator.judges import rubric as rubrics
from evaluator.judges.judge import TOO_LONG, Answer, Score
from evaluator.judges.number_scores import HIGHEST, SCORING_VERSION, weighted_score
from evaluator.judges.number_tree import NumberTree, Path
from evaluator.length_batches import length_batches
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import LoadedModel, best_dtype, default_device
from evaluator.models.packed_linear import LAYOUT, packs
from policies.contract.judges import Rubric
from policies.errors import ConfigurationError, EvaluationError

PROMPT_TOKENS_AT_ONCE = 4096


class LocalModelJudge:
    """Scores answers with a causal language model; it is loaded when the first answer comes."""

    def __init__(self, resolved: ResolvedBase) -> None:
        self._resolved = resolved
        self.identity = f"local_model {resolved.digest} {_engine()} scoring {SCORING_VERSION} {rubrics.DIGEST}"

    @cached_property
    def _loaded(self) -> LoadedModel:
        try:
            return load_for_transformers(self._resolved)
        except ConfigurationError as error:
            raise EvaluationError(f"the judge's model can't be loaded: {error}") from error

    @cached_property
    def _tree(self) -> NumberTree:
        numbers = Choices(ChatPrompt.of("How much?"), tuple(map(str, range(HIGHEST + 1))))
        answers = question_ids(self._loaded.encoder, numbers)
        return NumberTree({tuple(answer.answer_ids): number for number, answer in enumerate(answers)})

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Added tokens that look like marks: a template could use them, and plain text never needs them."""
        added = self._loaded.tokenizer.added_tokens_decoder.values()
        return tuple(token.content for token in added if token.special or token.content[:1] in "<[")

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        rows = [self._prompt(rubric, answer) for answer in answers]
        limit = getattr(self._loaded.model.config, "max_position_embeddings", None) or math.inf
        fits = [index for index, row in enumerate(rows) if len(row) + len(self._tree.levels) <= limit]
        scores = dict.fromkeys(range(len(rows)), Score(None, f"{TOO_LONG}: the judge reads {limit} tokens"))
        n_done = 0
        for places in length_batches([len(rows[index]) for index in fits], max_tokens=PROMPT_TOKENS_AT_ONCE):
            batch = [fits[place] for place in places]
            scores |= dict(zip(batch, self._score_batch([rows[index] for index in batch]), strict=True))
            n_done += len(batch)
            advance(n_done, len(fits))
        return [scores[index] for index in range(len(rows))]

    def _prompt(self, rubric: Rubric, answer: Answer) -> list[int]:
        message = rubrics.render(rubric, answer, self._control_tokens)
        return prompt_ids(self._loaded.encoder, ChatPrompt.of(message))

    def _score_batch(self, rows: list[list[int]]) -> list[Score]:
        return [weighted_score(probabilities) for probabilities in number_probabilities(self._loaded, self._tree, rows)]


def _engine() -> str:
    """Number format, packages and kind of layers: all that the model's numbers depend on up to rounding."""
    device = default_device()
    dtype = best_dtype(device)
    layers = [LAYOUT] if packs(device, dtype) else []
    packages = [f"{package} {version(package)}" for package in ("torch", "transformers")]
    return " ".join((str(dtype).removeprefix("torch."), *packages, *layers))


@torch.inference_mode()
def number_probabilities(loaded: LoadedModel, tree: NumberTree, rows: list[list[int]]) -> list[dict[int, float]]:
    """For each prompt, the probability of each number as the beginning of the reply."""
    device, pad = loaded.model.device, loaded.tokenizer.pad_token_id
    ids, mask = pad_batch(rows, int(pad) if pad is not None else 0, left=True, device=device)
    found: list[dict[Path, float]] = [{(): 1.0} for _ in rows]
    cache = DynamicCache(config=loaded.model.config)
    for depth, level in enumerate(tree.levels):
        if depth:
            n_before = len(tree.levels[depth - 1])
            parents = [row * n_before + place for row in range(len(rows)) for place in tree.parents(depth)]
            cache.batch_select_indices(torch.tensor(parents, device=device))
            ids = torch.tensor([[path[-1]] for _ in rows for path in level], device=device)
            mask = torch.cat([mask[parents], mask.new_ones(len(parents), 1)], dim=1)
        shares = _next_probabilities(loaded, ids, mask, cache=cache).view(len(rows), len(level), -1)
        for own, row_shares in zip(found, shares, strict=True):
            for path, path_shares in zip(level, row_shares, strict=True):
                own |= {child: own[path] * float(path_shares[child[-1]]) for child in tree.children[path]}
    return [tree.numbers_said(own) for own in found]


def _next_probabilities(loaded: LoadedModel, ids: Tensor, mask: Tensor, *, cache: DynamicCache) -> Tensor:
    """Probability [rows, vocabulary] of the token after `ids`, which follow what is in `cache`."""
    with contiguous_output_layer(loaded.model):
        output = loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    probabilities: Tensor = output.logits[:, -1].float().softmax(-1)
    return probabilities
