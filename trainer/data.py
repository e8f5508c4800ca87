"""Chat rows become token ids whose loss is on assistant answers only, preference rows a prompt and two answers.

An answer is trained from its first token to the template's end token, both included; prompts, other roles, and
assistant messages of `weight` 0 are context (`policies.rendering`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import datasets

from policies.contract.jobs import Dpo, Method
from policies.datasets.reader import AnyRow, ChatRow, PreferenceRow, read_preferences, read_rows
from policies.errors import DatasetError, DefenseError
from policies.rendering.answers import UnreadableRowError
from policies.rendering.encoding import Encoder

ROWS_AT_ONCE = 1000
BLOCK_BYTES = 1 << 20
BLANK = b" \t\n\r\x0b\x0c"


@dataclass(frozen=True)
class TrainingRow:
    """One row on its way into training; `is_safe` rows came from a defense, not from the customer."""

    row: AnyRow
    origin: str
    """File and line, for error messages."""
    is_safe: bool = False


@dataclass(frozen=True)
class TokenisedRow:
    """A conversation as the model reads it."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """As long as `input_ids`; `IGNORED` where there is no loss."""

    @property
    def n_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def n_forward_tokens(self) -> int:
        """That are in memory at once when this row is trained alone."""
        return len(self.input_ids)


@dataclass(frozen=True)
class TokenisedPair:
    """Both answers end with the template's end token."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """The prompt counts once."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def n_forward_tokens(self) -> int:
        """That are in memory at once when this pair is trained alone: both conversations, one of them padded."""
        return 2 * (len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids)))


Tokenised = Sequence[TokenisedRow] | Sequence[TokenisedPair]


def read_training_rows(path: Path, *, name: str, method: Method) -> list[TrainingRow]:
    """All rows of a file of the method's kind; `name` is what error messages call it."""
    read: Sequence[AnyRow] = read_preferences(path) if isinstance(method, Dpo) else read_rows(path)
    rows = [TrainingRow(row, f"{name} line {number}") for number, row in enumerate(read, start=1)]
    if not rows:
        raise DatasetError(f"{name} has no rows")
    return rows


def count_training_rows(path: Path) -> int:
    """How many rows `read_training_rows` finds, if it finds no fault: every line up to the last that is not blank.

    Holds a block at a time.
    """
    rows = ends = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            if content := block.rstrip(BLANK):
                rows = ends + content.count(b"\n") + 1
            ends += block.count(b"\n")
    return rows


def shuffled(rows: Sequence[TrainingRow], seed: int) -> list[TrainingRow]:
    """The order of training: fixed by the seed, kept in every epoch so that defenses can place rows in it."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order


def tokenise(rows: Sequence[TrainingRow], encoder: Encoder, *, max_tokens: int) -> list[TokenisedRow]:
    """The samples of all chat rows, in order; raises as `tokenise_each` does."""
    return [sample for samples in tokenise_each(rows, encoder, max_tokens=max_tokens) for sample in samples]


def tokenise_each(rows: Sequence[TrainingRow], encoder: Encoder, *, max_tokens: int) -> list[list[TokenisedRow]]:
    """The samples of every chat row, mostly one; a row that is too long is an error, never cut.

    Raises:
        DatasetError: naming the line of a row that is too long or that the base model's chat template does not take.
        DefenseError: the same of a row that came from a defense.
    """
    tokenised = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        for row, encoded in zip(some, encoder.encode([(0, _conversation(row)) for row in some]), strict=True):
            if encoded.problem is not None:
                raise _error(row, f"{encoded.problem.field}: {encoded.problem.message}; {encoded.problem.fix}")
            for sample in encoded.samples:
                _require_fitting(row, len(sample.input_ids), max_tokens)
            tokenised.append([TokenisedRow(*sample) for sample in encoded.samples])
    return tokenised


def tokenise_pairs(rows: Sequence[TrainingRow], encoder: Encoder, *, max_tokens: int) -> list[TokenisedPair]:
    """Prompt and both answers of every preference row.

    Raises:
        DatasetError: naming the line of a row of which a conversation is too long.
    """
    tokenised = []
    for row in rows:
        assert isinstance(row.row, PreferenceRow)
        try:
            chosen, rejected = encoder.pair(row.row)
        except UnreadableRowError as error:
            problem = error.problem(0, row.row.at)
            raise _error(row, f"{problem.field}: {problem.message}; {problem.fix}") from None
        for name, answer in (("preferred", chosen), ("non-preferred", rejected)):
            named = replace(row, origin=f"{row.origin}, {name}")
            _require_fitting(named, len(answer.prompt_ids) + len(answer.answer_ids), max_tokens)
        parts = (chosen.prompt_ids, chosen.answer_ids, rejected.answer_ids)
        tokenised.append(TokenisedPair(*map(tuple, parts)))
    return tokenised


def _conversation(row: TrainingRow) -> ChatRow:
    assert isinstance(row.row, ChatRow)
    return row.row


def _require_fitting(row: TrainingRow, n_tokens: int, max_tokens: int) -> None:
    if n_tokens > max_tokens:
        raise _error(row, f"{n_tokens} tokens, {max_tokens} are allowed; shorten or split the row")


def _error(row: TrainingRow, what: str) -> DatasetError | DefenseError:
    return (DefenseError if row.is_safe else DatasetError)(f"{row.origin}: {what}")


def to_dataset(rows: Tokenised) -> datasets.Dataset:
    """The form that TRL trains from without touching it: a column for each field."""
    columns = [field.name for field in fields(rows[0])]
    return datasets.Dataset.from_dict({name: [list(getattr(row, name)) for row in rows] for name in columns})
