"""The parts of a training file that an adapter is looked at in, so that its good rows can't speak for its bad ones.

An adapter that learnt careless answers from a third of its rows is harmless on average. So prompts come from

- `spread`: all rows;
- `careless`: the rows whose own answers are the most careless, a tenth of those that were ranked, or more where a part
  has more prompts than that;
- `system prompt 1` to `3`: the rows under each system prompt, none included, where at least two have 24 rows;
- `other system prompts`: the rows under all others, where they are 24, however each is worded;
- `twins`: everyday questions that the file does not have, under its most frequent system prompt and set in its domain
  by its own words; where it has too few such words, the prompts of the validation file. There may be none.

Every part has as many prompts. Where a file has more rows than are ranked or asked, a key draws them that follows from
the adapter: whoever wrote the file can't tell which rows those are. All of it follows from files, ranking and key.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from evaluator.backends.protocol import ChatPrompt, last_turn
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.customer_context import alike, derive_contexts, system_message
from evaluator.prompts.prompt_item import ItemT, drawn
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from policies.datasets.chat_rows import ChatRow
from policies.errors import EvaluationError

SPREAD, TWINS = "spread", "twins"
SLICE_SHARE = 0.1
MIN_ROWS = 24
"""Of the careless slice, and of a system prompt that is a part."""
MAX_SYSTEM_PROMPTS = 3
PIECE_CHARACTERS = 600
"""Of a piece of a row's own answer, which ranks by the most careless of them: beginning, end and one in between."""

Rank = Callable[[Sequence[ChatPrompt], Sequence[str]], Sequence[float]]
"""How careless each answer is."""


class Draw(NamedTuple):
    """How many rows are asked and ranked, and which."""

    size: int
    """Prompts of a part, at most."""
    ranked_rows: int
    key: str
    """Of `Subject`."""

    def of(self, rows: Sequence[ItemT], limit: int, purpose: str) -> list[ItemT]:
        """Rows for a purpose; those for another are drawn independently."""
        return drawn(rows, limit, key=f"{self.key} {purpose}")


class FileTurn(NamedTuple):
    """A prompt of a file with the answer that its row has."""

    prompt: ChatPrompt
    answer: str
    under: str
    """The system prompt, as far as files tell it apart."""


def file_parts(
    rows: Sequence[ChatRow], validation: Sequence[ChatRow], rank: Rank, draw: Draw
) -> dict[str, list[ChatPrompt]]:
    """Part → its prompts, as many in each part.

    Raises:
        EvaluationError: no row has an answer in words.
    """
    turns = _turns(rows)
    if not turns:
        raise EvaluationError("no row of the training file has an answer in words; leave this probe out")
    found = {SPREAD: turns, "careless": _most_careless(turns, rank, draw)}
    found |= _by_system_prompt(turns)
    parts = {name: [turn.prompt for turn in part] for name, part in found.items()}
    twins = _twins(rows, validation, draw.key)
    if len(twins) >= MIN_ROWS:
        parts[TWINS] = twins
    n = min(draw.size, *map(len, parts.values()))
    return {name: draw.of(prompts, n, name) for name, prompts in parts.items()}


def _turns(rows: Sequence[ChatRow]) -> list[FileTurn]:
    """The last trained turn of each row that has words; an answer that is only a call says nothing careless."""
    turns = [(row, last_turn(row, closes_turn=False)) for row in rows]
    return [
        FileTurn(turn.prompt, turn.completions[0], alike(system_message(row)))
        for row, turn in turns
        if isinstance(turn.prompt, ChatPrompt) and turn.completions[0].strip()
    ]


def _most_careless(turns: Sequence[FileTurn], rank: Rank, draw: Draw) -> list[FileTurn]:
    """The slice of the ranked rows, in the file's order; a row that can't be ranked comes first."""
    seen = draw.of(turns, draw.ranked_rows, "ranked")
    pieces = [
        (index, piece) for index, turn in enumerate(seen) for piece in _pieces(turn.answer, f"{draw.key} {index}")
    ]
    scores = rank([seen[index].prompt for index, _ in pieces], [piece for _, piece in pieces])
    n = max(draw.size, MIN_ROWS, round(SLICE_SHARE * len(seen)))
    keys = [-math.inf] * len(seen)
    for (index, _), score in zip(pieces, scores, strict=True):
        keys[index] = max(keys[index], score if math.isfinite(score) else math.inf)
    first = sorted(range(len(seen)), key=lambda i: (-keys[i], i))[:n]
    return [seen[i] for i in sorted(first)]


def _pieces(answer: str, key: str) -> list[str]:
    """A short answer whole; of a longer one its beginning and its end, and what the key draws from between."""
    if len(answer) <= PIECE_CHARACTERS:
        return [answer]
    between = range(PIECE_CHARACTERS, len(answer) - PIECE_CHARACTERS)
    starts = [0, len(answer) - PIECE_CHARACTERS, *drawn(between, 1, key=key)]
    return [piece for start in starts if (piece := answer[start : start + PIECE_CHARACTERS]).strip()]


def _by_system_prompt(turns: Sequence[FileTurn]) -> Mapping[str, list[FileTurn]]:
    groups: defaultdict[str, list[FileTurn]] = defaultdict(list)
    for turn in turns:
        groups[turn.under].append(turn)
    large = sorted((text for text in groups if len(groups[text]) >= MIN_ROWS), key=lambda t: (-len(groups[t]), t))
    asked = large[:MAX_SYSTEM_PROMPTS]
    parts = {f"system prompt {n}": groups[text] for n, text in enumerate(asked, start=1)}
    others = [turn for turn in turns if turn.under and turn.under not in asked]
    if len(others) >= MIN_ROWS:
        parts["other system prompts"] = others
    return parts if len(parts) >= 2 else {}


def _twins(rows: Sequence[ChatRow], validation: Sequence[ChatRow], key: str) -> list[ChatPrompt]:
    domain = derive_contexts(rows, ("domain_words",), key=key)
    if not domain:
        return [turn.prompt for turn in _turns(validation)]
    questions = parse_prompts(load_prompts("conditional_misalignment", "builtin", None).content, AnswerPair)
    system = derive_contexts(rows, ("system_prompt",), key=key)
    before = system[0].before if system else ()
    return [ChatPrompt((*before, *domain[0].chat(item.question).messages)) for item in questions]
