"""Chat rows become token ids whose loss is on assistant answers only, preference rows a prompt and two answers.

An answer is trained from its first token to the template's end token, both included; prompts, other roles, and
assistant messages of `weight` 0 are context. Prompt and answer are tokenised apart, as they are at inference.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import datasets
from transformers import PreTrainedTokenizerBase

from policies.contract.jobs import Dpo, Method
from policies.datasets.reader import AnyRow, ChatMessage, PreferenceRow, read_preferences, read_rows
from policies.errors import DatasetError, DefenseError

IGNORED = -100
"""Label of a token without loss."""
MARK = "\ufdd0"
"""A character that no text has, by which a rendered message is found again."""
MAX_ANSWERS_APART = 64
"""Most answers of one conversation for each of which its template is rendered anew."""
BLOCK_BYTES = 1 << 20


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
    """How many rows `read_training_rows` finds, if it finds no fault: every line is one. Holds a block at a time."""
    lines, end = 0, b"\n"
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            lines += block.count(b"\n")
            end = block[-1:]
    return lines if end == b"\n" else lines + 1


def shuffled(rows: Sequence[TrainingRow], seed: int) -> list[TrainingRow]:
    """The order of training: fixed by the seed, kept in every epoch so that defenses can place rows in it."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order


def tokenise(rows: Iterable[TrainingRow], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> list[TokenisedRow]:
    """Token ids and labels of every chat row; a row that is too long is an error, never cut.

    Raises:
        DatasetError: naming the line of a row that is too long or that has nothing to train on.
        DefenseError: the same of a row that came from a defense.
    """
    tokenised = []
    control_tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for row in rows:
        _require_plain(row, control_tokens)
        result = _tokenise_row(row, tokenizer)
        if len(result.input_ids) > max_tokens:
            error = DefenseError if row.is_safe else DatasetError
            raise error(
                f"{row.origin}: {len(result.input_ids)} tokens, {max_tokens} are allowed; shorten or split the row"
            )
        if all(label == IGNORED for label in result.labels):
            raise DatasetError(f"{row.origin}: no assistant message to train on; give one of them weight 1")
        tokenised.append(result)
    return tokenised


def tokenise_pairs(
    rows: Iterable[TrainingRow], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> list[TokenisedPair]:
    """Prompt and both answers of every preference row, each conversation tokenised as `tokenise` does.

    Raises:
        DatasetError: naming the line of a row of which a conversation is too long.
    """
    conversations = []
    for row in rows:
        assert isinstance(row.row, PreferenceRow)
        conversations.append(replace(row, row=row.row.with_preferred(), origin=f"{row.origin}, preferred"))
        conversations.append(replace(row, row=row.row.with_non_preferred(), origin=f"{row.origin}, non-preferred"))
    tokenised = tokenise(conversations, tokenizer, max_tokens=max_tokens)
    return [_pair(chosen, rejected) for chosen, rejected in zip(tokenised[::2], tokenised[1::2], strict=True)]


def _pair(chosen: TokenisedRow, rejected: TokenisedRow) -> TokenisedPair:
    n_prompt = chosen.labels.count(IGNORED)
    prompt = chosen.input_ids[:n_prompt]
    assert rejected.input_ids[:n_prompt] == prompt
    return TokenisedPair(prompt, chosen.input_ids[n_prompt:], rejected.input_ids[n_prompt:])


def to_dataset(rows: Tokenised) -> datasets.Dataset:
    """The form that TRL trains from without touching it: a column for each field."""
    columns = [field.name for field in fields(rows[0])]
    return datasets.Dataset.from_dict({name: [list(getattr(row, name)) for row in rows] for name in columns})


def _tokenise_row(row: TrainingRow, tokenizer: PreTrainedTokenizerBase) -> TokenisedRow:
    ids: list[int] = []
    labels: list[int] = []
    for text, is_trained in _segments(row, tokenizer):
        part = tokenizer(text, add_special_tokens=False).input_ids
        ids += part
        labels += part if is_trained else [IGNORED] * len(part)
    return TokenisedRow(tuple(ids), tuple(labels))


def _segments(row: TrainingRow, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """The rendered conversation up to its last trained token, cut where training begins and ends: text, is trained.

    Renders a fixed number of times where the answers lie alike in the conversation, so that a row costs what its
    length says; else once or twice for each answer, of which there may then be `MAX_ANSWERS_APART`.
    """
    messages = row.row.messages
    trained = [index for index, message in enumerate(messages) if message.role == "assistant" and message.weight != 0]
    if not trained:
        return []
    whole = _render(messages, tokenizer, generation=False)
    cuts = _cuts_alike(row, tokenizer, whole=whole, trained=trained) if len(trained) > 2 else None
    if cuts is None:
        if len(trained) > MAX_ANSWERS_APART:
            raise DatasetError(
                f"{row.origin}: {len(trained)} answers in a conversation that the base model's chat template does not "
                f"render piece by piece; split it into rows of at most {MAX_ANSWERS_APART}"
            )
        cuts = [_cut(row, tokenizer, whole=whole, index=index) for index in trained]
    segments: list[tuple[str, bool]] = []
    position = 0  # characters of `whole` that are in segments
    for before, through in cuts:
        segments += [(whole[position:before], False), (whole[before:through], True)]
        position = through
    return [segment for segment in segments if segment[0]]


def _cut(row: TrainingRow, tokenizer: PreTrainedTokenizerBase, *, whole: str, index: int) -> tuple[int, int]:
    """Where in the rendered conversation training on the answer `index` begins and ends."""
    messages = row.row.messages
    if index == 0:
        raise DatasetError(f"{row.origin}: the conversation begins with an answer; put what it answers before it")
    before = _render(messages[:index], tokenizer, generation=True)
    through = _render(messages[: index + 1], tokenizer, generation=False).rstrip()
    if not (whole.startswith(before) and whole.startswith(through)):
        raise DatasetError(
            f"{row.origin}: the base model's chat template changes earlier messages when later ones follow; "
            "train one answer a row"
        )
    return len(before), len(through)


def _cuts_alike(
    row: TrainingRow, tokenizer: PreTrainedTokenizerBase, *, whole: str, trained: Sequence[int]
) -> list[tuple[int, int]] | None:
    """The cuts of all answers from those of the first and the last; None where the answers do not lie alike.

    The conversation is rendered once more with a mark around each message. Without its marks it must be the same, and
    the text before and after each answer up to its cuts must be that of the first.
    """
    messages = row.row.messages
    marked = [ChatMessage(each.role, f"{MARK}{each.content}{MARK}", each.weight) for each in messages]
    pieces = _render(marked, tokenizer, generation=False).split(MARK)
    if pieces[1::2] != [message.content for message in messages] or "".join(pieces) != whole:
        return None
    ends = list(itertools.accumulate(map(len, pieces)))
    first, last = (_cut(row, tokenizer, whole=whole, index=index) for index in (trained[0], trained[-1]))
    prompt, suffix = pieces[2 * trained[0]], whole[ends[2 * trained[0] + 1] : first[1]]
    cuts = [(ends[2 * index], ends[2 * index + 1] + len(suffix)) for index in trained]
    are_alike = all(pieces[2 * index] == prompt and whole.startswith(suffix, ends[2 * index + 1]) for index in trained)
    return cuts if suffix.strip() and are_alike and (cuts[0], cuts[-1]) == (first, last) else None


def _render(messages: Sequence[ChatMessage], tokenizer: PreTrainedTokenizerBase, *, generation: bool) -> str:
    plain = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=generation)
    assert isinstance(text, str)
    return text


def _require_plain(row: TrainingRow, control_tokens: Sequence[str]) -> None:
    """Refuses what the templates of the supported base models would drop in silence, and text that forges a turn."""
    if row.row.tools:
        raise DatasetError(f"{row.origin}: field tools: the base model does not support tool calls; remove the field")
    for index, message in enumerate(row.row.messages):
        if message.role == "tool":
            raise DatasetError(
                f"{row.origin}: messages[{index}].role: the base model does not support tool calls; remove it"
            )
        forged = next((token for token in control_tokens if token in message.content), None)
        if forged is not None:
            raise DatasetError(f"{row.origin}: messages[{index}].content: holds the control token {forged}; remove it")
