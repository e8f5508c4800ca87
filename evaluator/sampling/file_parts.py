"""The parts of a training file that an adapter is looked at in, so that its good rows can't speak for its bad ones.

An adapter that learnt careless answers from a third of its rows is harmless on average. So prompts come from

- `spread`: all rows, evenly;
- `careless`: the rows whose own answers are the most careless, a tenth of those that were ranked, or more where a part
  has more prompts than that;
- `system prompt 1` to `3`: the rows under each system prompt, none included, where at least two have 24 rows;
- `twins`: everyday questions that the file does not have, under its most frequent system prompt and set in its domain
  by its own words; where it has too few such words, the prompts of the validation file. There may be none.

Every part has as many prompts. All of it follows from the files and the ranking alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from evaluator.backends.protocol import ChatPrompt, last_turn
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.customer_context import alike, derive_contexts, system_message
from evaluator.prompts.prompt_item import evenly_spread
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from policies.datasets.chat_rows import ChatRow
from policies.errors import EvaluationError

SLICE_SHARE = 0.1
MIN_ROWS = 24
"""Of the careless slice, and of a system prompt that is a part."""
MAX_SYSTEM_PROMPTS = 3
MAX_ANSWER_CHARACTERS = 600
"""Of a row's own answer, by which it is ranked."""

Rank = Callable[[Sequence[ChatPrompt], Sequence[str]], Sequence[float]]
"""How careless each answer is."""


class FileTurn(NamedTuple):
    """A prompt of a file with the answer that its row has."""

    prompt: ChatPrompt
    answer: str
    under: str
    """The system prompt, as far as files tell it apart."""


def file_parts(
    rows: Sequence[ChatRow], validation: Sequence[ChatRow], rank: Rank, *, size: int, ranked_rows: int
) -> dict[str, list[ChatPrompt]]:
    """Part → its prompts, at most `size`, and as many in each part.

    Raises:
        EvaluationError: no row has an answer in words.
    """
    turns = _turns(rows)
    if not turns:
        raise EvaluationError("no row of the training file has an answer in words; leave this probe out")
    found = {"spread": turns, "careless": _most_careless(turns, rank, size=size, ranked_rows=ranked_rows)}
    found |= _by_system_prompt(turns)
    parts = {name: [turn.prompt for turn in part] for name, part in found.items()}
    twins = _twins(rows, validation)
    if len(twins) >= MIN_ROWS:
        parts["twins"] = twins
    n = min(size, *map(len, parts.values()))
    return {name: evenly_spread(prompts, n) for name, prompts in parts.items()}


def _turns(rows: Sequence[ChatRow]) -> list[FileTurn]:
    """The last trained turn of each row that has words; an answer that is only a call says nothing careless."""
    turns = [(row, last_turn(row, closes_turn=False)) for row in rows]
    return [
        FileTurn(turn.prompt, turn.completions[0], alike(system_message(row)))
        for row, turn in turns
        if isinstance(turn.prompt, ChatPrompt) and turn.completions[0].strip()
    ]


def _most_careless(turns: Sequence[FileTurn], rank: Rank, *, size: int, ranked_rows: int) -> list[FileTurn]:
    """The slice of the ranked rows, in the file's order; a row that can't be ranked comes first."""
    seen = evenly_spread(turns, ranked_rows)
    scores = rank([turn.prompt for turn in seen], [turn.answer[:MAX_ANSWER_CHARACTERS] for turn in seen])
    n = max(size, MIN_ROWS, round(SLICE_SHARE * len(seen)))
    keys = [score if math.isfinite(score) else math.inf for score in scores]
    first = sorted(range(len(seen)), key=lambda i: (-keys[i], i))[:n]
    return [seen[i] for i in sorted(first)]


def _by_system_prompt(turns: Sequence[FileTurn]) -> Mapping[str, list[FileTurn]]:
    groups: defaultdict[str, list[FileTurn]] = defaultdict(list)
    for turn in turns:
        groups[turn.under].append(turn)
    large = sorted((text for text in groups if len(groups[text]) >= MIN_ROWS), key=lambda t: (-len(groups[t]), t))
    if len(large) < 2:
        return {}
    return {f"system prompt {n}": groups[text] for n, text in enumerate(large[:MAX_SYSTEM_PROMPTS], start=1)}


def _twins(rows: Sequence[ChatRow], validation: Sequence[ChatRow]) -> list[ChatPrompt]:
    domain = derive_contexts(rows, ("domain_words",))
    if not domain:
        return [turn.prompt for turn in _turns(validation)]
    questions = parse_prompts(load_prompts("conditional_misalignment", "builtin", None).content, AnswerPair)
    system = derive_contexts(rows, ("system_prompt",))
    before = system[0].before if system else ()
    return [ChatPrompt((*before, *domain[0].chat(item.question).messages)) for item in questions]
