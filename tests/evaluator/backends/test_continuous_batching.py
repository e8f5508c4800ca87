"""Our decoding gives the tokens of transformers' own, whoever shares the batch, and lets rows leave and join."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator.backends.causal_parts import CausalParts, shared_prefix
from evaluator.backends.continuous_batching import Decoding, GenerationRequest, decode
from evaluator.backends.kv_cache import ROOM_TOKENS, RoomyCache
from evaluator.backends.transformers_generation import decode_with_transformers
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import LoadedModel

PROMPTS = [
    [10, 20, 30],
    [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150],
    [10, 20, 30, 40],
    [10, 20, 7],
    [10, 20, 30],
    [10, 20, 99, 98, 97, 96, 95],
]
"""They share two tokens; the first is asked twice."""
END = 257
NEVER = 258
"""No token of the model."""


@pytest.fixture
def passes(loaded: LoadedModel) -> list[tuple[int, int]]:
    """(rows, tokens) of every pass through the model's body from now on."""
    passes: list[tuple[int, int]] = []
    loaded.model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return passes


def requests(prompts: Sequence[list[int]] = PROMPTS) -> list[GenerationRequest]:
    return [GenerationRequest(ids, seed=100 + number) for number, ids in enumerate(prompts)]


def decoding(*, end: int = END, **changes: Any) -> Decoding:  # Any: fields of Decoding
    return Decoding(
        ends=frozenset({end}), pad=END, max_new_tokens=24, temperature=0, rows=96, prompt_tokens=4096
    )._replace(**changes)


@torch.inference_mode()
def ours(loaded: LoadedModel, asked: Sequence[GenerationRequest], how: Decoding) -> list[list[int]]:
    return decode(CausalParts(loaded.model), asked, how, done=lambda finished: None)


@torch.inference_mode()
def theirs(loaded: LoadedModel, asked: Sequence[GenerationRequest], how: Decoding) -> list[list[int]]:
    return decode_with_transformers(loaded.model, asked, how, done=lambda finished: None, pads=True)


def an_end(loaded: LoadedModel, asked: Sequence[GenerationRequest]) -> int:
    """The token that ends answers at the most different lengths, if it is taken as end token."""
    lengths = {}
    answers = ours(loaded, asked, decoding(end=NEVER))
    for token in {token for answer in answers for token in answer}:
        lengths[token] = {answer.index(token) if token in answer else 24 for answer in answers}
    return max(lengths, key=lambda token: len(lengths[token]))


def test_greedy_tokens_are_those_of_transformers(loaded: LoadedModel) -> None:
    assert ours(loaded, requests(), decoding()) == theirs(loaded, requests(), decoding())


def test_greedy_tokens_with_an_adapter_are_those_of_transformers(
    loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    bare = ours(loaded, requests(), decoding())
    adapted = attach_adapter(loaded, make_adapter(0.5))

    assert ours(adapted, requests(), decoding()) == theirs(adapted, requests(), decoding()) != bare


def test_answers_that_end_at_different_lengths_are_those_of_transformers(loaded: LoadedModel) -> None:
    how = decoding(end=an_end(loaded, requests()))
    answers = ours(loaded, requests(), how)

    assert answers == theirs(loaded, requests(), how)
    assert len({len(answer) for answer in answers}) > 2


def test_a_single_row_is_that_of_transformers(loaded: LoadedModel) -> None:
    assert ours(loaded, requests()[:1], decoding()) == theirs(loaded, requests()[:1], decoding())


def test_an_end_at_the_first_token_is_the_whole_answer(loaded: LoadedModel) -> None:
    first = ours(loaded, requests()[:1], decoding())[0][0]
    how = decoding(end=first)
    answers = ours(loaded, requests(), how)

    assert answers[0] == answers[4] == [first]
    assert answers == theirs(loaded, requests(), how)


@pytest.mark.parametrize("tokens", [1, 2, ROOM_TOKENS + 1, 2 * ROOM_TOKENS + 5])
def test_an_answer_without_end_has_all_new_tokens(loaded: LoadedModel, tokens: int) -> None:
    how = decoding(max_new_tokens=tokens, end=NEVER)
    answers = ours(loaded, requests(), how)

    assert {len(answer) for answer in answers} == {tokens}
    assert answers == theirs(loaded, requests(), how)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_answers_do_not_depend_on_the_batch(loaded: LoadedModel, rows: int, temperature: float) -> None:
    """Rows leave and join at many places; the order is turned round as well."""
    how = decoding(end=an_end(loaded, requests()), temperature=temperature)
    together = ours(loaded, requests(), how)
    apart = ours(loaded, requests()[::-1], how._replace(rows=rows, prompt_tokens=8))

    assert apart[::-1] == together


def test_sampled_tokens_are_those_of_the_slow_way(loaded: LoadedModel) -> None:
    how = decoding(temperature=0.8)

    assert ours(loaded, requests(), how) == theirs(loaded, requests(), how)


def test_equal_prompts_with_other_seeds_get_other_samples(loaded: LoadedModel) -> None:
    first, second = ours(loaded, requests([PROMPTS[1]] * 2), decoding(temperature=1.0))

    assert first != second


def test_shared_tokens_and_equal_prompts_run_once(loaded: LoadedModel, passes: list[tuple[int, int]]) -> None:
    """The prefix of 2 tokens in one row, the 5 different rests of up to 13 tokens, then a token for each of 6 rows."""
    parts = CausalParts(loaded.model)
    passes.clear()
    with torch.inference_mode():
        decode(parts, requests(), decoding(max_new_tokens=3, end=NEVER), done=lambda finished: None)

    assert passes == [(1, 2), (5, 13), (6, 1), (6, 1)]


def test_ended_rows_leave_and_waiting_prompts_take_their_place(
    loaded: LoadedModel, passes: list[tuple[int, int]]
) -> None:
    """In batches of 2 that wait for each other, 6 answers cost more steps than with places that are filled again."""
    asked = requests([[*ids, 5, 6] for ids in PROMPTS])  # so that only steps are one token wide
    end = an_end(loaded, asked)
    lengths = [len(answer) for answer in ours(loaded, asked, decoding(end=end))]
    order = sorted(range(6), key=lambda index: len(PROMPTS[index]))
    waiting = sum(max(lengths[i], lengths[j]) - 1 for i, j in zip(order[::2], order[1::2], strict=True))
    passes.clear()
    ours(loaded, asked, decoding(end=end, rows=2))
    steps = [rows for rows, tokens in passes if tokens == 1]

    assert max(steps) == 2
    assert sum(steps) == sum(length - 1 for length in lengths)
    assert len(steps) < waiting


def test_finished_answers_are_told(loaded: LoadedModel) -> None:
    told: list[int] = []
    with torch.inference_mode():
        decode(
            CausalParts(loaded.model), requests(), decoding(end=an_end(loaded, requests()), rows=2), done=told.append
        )

    assert told == sorted(set(told))
    assert told[-1] == 6


def test_no_prompt_needs_no_model(loaded: LoadedModel) -> None:
    assert ours(loaded, [], decoding()) == []


@pytest.mark.parametrize(
    ("rows", "prefix"),
    [([[1, 2, 3], [1, 2, 4]], [1, 2]), ([[1, 2], [1, 2]], [1]), ([[1], [2]], []), ([[5]], []), ([], [])],
)
def test_prefix_leaves_a_token_to_every_row(rows: list[list[int]], prefix: list[int]) -> None:
    assert shared_prefix(rows) == prefix


def first_keys(cache: RoomyCache) -> torch.Tensor:
    keys: object = getattr(cache.layers[0], "keys", None)
    assert isinstance(keys, torch.Tensor)
    return keys


def test_rows_of_a_cache_leave_and_join(loaded: LoadedModel) -> None:
    """Two rows of 3 tokens; the second leaves together with the first token, then a row of 5 tokens joins."""
    parts = CausalParts(loaded.model)
    short, long = RoomyCache.of(parts.config), RoomyCache.of(parts.config)
    with torch.inference_mode():
        parts.hidden(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 3, dtype=torch.long), short)
        parts.hidden(torch.tensor([[7, 8, 9, 10, 11]]), torch.ones(1, 5, dtype=torch.long), long)
    before = first_keys(short).clone()
    short.select(torch.tensor([0]), first=1)
    short.join(long)
    keys = first_keys(short)

    assert keys.shape[0::2] == (2, 5)
    assert torch.equal(keys[0, :, 3:], before[0, :, 1:])
    assert not keys[0, :, :3].any()
    assert torch.equal(keys[1], first_keys(long)[0])
