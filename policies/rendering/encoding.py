"""Conversations become token ids with their trained answers: once, for validation, training and evaluation alike.

A conversation is rendered by the base model's chat template and read whole by its tokenizer, as a server reads it; what
is trained is found by the characters that each token stands for. An answer is trained from where the model would have
to go on by itself, which is where the template's generation prompt ends, through the token at which generation stops.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.problems import DatasetProblem
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.datasets.row_findings import Note
from policies.datasets.tools import Tool
from policies.rendering.answers import AnswerFinder, Conversation, Rendered, UnreadableRowError, require_plain
from policies.rendering.base_text import BaseText
from policies.rendering.tokens import TokenisedText

IGNORED = -100
"""Label of a token without loss."""


class Sample(NamedTuple):
    """A conversation as the model reads it."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """As long as `input_ids`; `IGNORED` where there is no loss."""


class EncodedRow(NamedTuple):
    """A row's samples, or what is wrong with it."""

    samples: tuple[Sample, ...]
    problem: DatasetProblem | None = None
    warnings: tuple[DatasetProblem, ...] = ()


class RowTexts(NamedTuple):
    """What is read of a row: of a chat row its samples, of a preference the conversation with each answer."""

    samples: tuple[Rendered, ...]
    is_preference: bool
    trimmed: tuple[int, ...] = ()
    """Messages that the template takes without the blanks around them."""
    notes: tuple[Note, ...] = ()
    """What is told of the row's file as a whole."""

    def warnings(self, line: int) -> tuple[DatasetProblem, ...]:
        """Of a row that can be trained."""
        return tuple(
            DatasetProblem.of("whitespace_trimmed", line, f"messages[{index}].content") for index in self.trimmed
        )


class RowTokens(NamedTuple):
    """How much is read of a row."""

    total: int
    """The conversation before the two answers of a preference once."""
    longest: int
    """Of one sample, or of the conversation with one of the answers."""


class Answer(NamedTuple):
    """Ids up to where the model goes on by itself, and those of what it says."""

    prompt_ids: list[int]
    answer_ids: list[int]


class Encoder:
    """Encodes for one base model."""

    def __init__(self, base: BaseText) -> None:
        self._tokenizer, self._answers = base.tokenizer, AnswerFinder(base)
        self.special, self.has_token_per_byte = base.tokenizer.special, base.tokenizer.has_token_per_byte
        self.date = base.date
        """Which day the template is told, where it writes the date; it belongs to what was measured."""
        self.end_ids = frozenset(self._id_of(character) for character in base.stops)
        """At which generation ends."""
        self.end_id = self._id_of(self._answers.end) if self._answers.end else None
        """With which a trained answer ends; None where the template gives it no such token."""
        self.template_source = base.template.source

    def texts(self, row: AnyRow) -> RowTexts:
        """What is read of a row, before it is read.

        Raises:
            UnreadableRowError: nothing can be trained of it.
        """
        if isinstance(row, ChatRow):
            found = self._answers.render(Conversation(row.messages, row.tools))
            return RowTexts(tuple(found.samples), is_preference=False, trimmed=found.trimmed, notes=self._notes(row))
        talk = Conversation(row.messages, row.tools)
        both = [self._answers.alone(talk, answer, ends=True, requires_all=True) for answer in row.answers()]
        return RowTexts(tuple(both), is_preference=True, notes=self._notes(row))

    def _notes(self, row: AnyRow) -> tuple[Note, ...]:
        named = self._answers.roles.named
        is_lost = any(each.name and each.role not in named and each.role != "tool" for each in row.messages)
        return (("name_not_rendered", f"{row.at}messages[].name"),) if is_lost else ()

    def sizes(self, rows: Sequence[RowTexts]) -> list[RowTokens]:
        """How many tokens training makes of each row."""
        read = iter(self._tokenizer.read([sample.text for row in rows for sample in row.samples]))
        sizes = []
        for row in rows:
            texts = [(sample.text, sample.trained[0][0]) for sample in row.samples]
            own = [next(read) for _ in texts]
            if row.is_preference:
                answers = self._split(texts, own)
                prompt, lengths = len(answers[0].prompt_ids), [len(each.answer_ids) for each in answers]
                sizes.append(RowTokens(prompt + sum(lengths), prompt + max(lengths)))
            else:
                counts = [
                    len(self._apart_if_needed(sample, each).ids) for sample, each in zip(row.samples, own, strict=True)
                ]
                sizes.append(RowTokens(sum(counts), max(counts)))
        return sizes

    def encode(self, rows: Sequence[tuple[int, ChatRow]]) -> list[EncodedRow]:
        """Rows with the numbers of their lines; the texts of all of them are read in one go.

        A row is one sample, or one for each answer where the template writes earlier turns otherwise once later ones
        follow (it drops their thoughts, say).
        """
        rendered: list[RowTexts | DatasetProblem] = []
        for line, row in rows:
            try:
                rendered.append(self.texts(row))
            except UnreadableRowError as error:
                rendered.append(error.problem(line))
        texts = [each.text for found in rendered if isinstance(found, RowTexts) for each in found.samples]
        read = iter(self._tokenizer.read(texts))
        return [
            EncodedRow((), found)
            if isinstance(found, DatasetProblem)
            else EncodedRow(tuple(self._sample(each, next(read)) for each in found.samples), None, found.warnings(line))
            for found, (line, _) in zip(rendered, rows, strict=True)
        ]

    def pair(self, row: PreferenceRow) -> list[Answer]:
        """Both answers of a preference, the better one first, after the same prompt ids.

        Raises:
            UnreadableRowError: nothing can be trained of it.
        """
        return self._split([(each.text, each.trained[0][0]) for each in self.texts(row).samples])

    def prompt(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        """Ids up to where the assistant's next answer begins.

        Raises:
            TemplateRefusalError: the template does not take the conversation.
        """
        return self._tokenizer.read([self._answers.prompt(Conversation(messages, tools))])[0].ids

    def answers(
        self,
        messages: Sequence[ChatMessage],
        texts: Sequence[str | ChatMessage],
        *,
        ends: bool,
        tools: Sequence[Tool] = (),
    ) -> list[Answer]:
        """Each of the texts, or messages, as the answer to a conversation, all after the same prompt ids.

        Args:
            ends: whether the token that ends an answer belongs to it.
            tools: that the conversation offers.

        Raises:
            UnreadableRowError: the template does not take it.
        """
        said = [ChatMessage("assistant", each, 1) if isinstance(each, str) else each for each in texts]
        talk = Conversation(messages, tools)
        rendered = [self._answers.alone(talk, each, ends=ends) for each in said]
        return self._split([(each.text, each.trained[0][0]) for each in rendered])

    def text(self, text: str) -> list[int]:
        """Ids of a text without chat template, after what the tokenizer begins every text with; it is all text."""
        require_plain(text, "text")
        return self._tokenizer.opening_ids + self._tokenizer.read([text])[0].ids

    def continuations(self, before: str, texts: Sequence[str], *, ends: bool) -> list[Answer]:
        """Each of the texts after another one, without chat template."""
        for text in (before, *texts):
            require_plain(text, "text")
        end = [self.end_id] if ends and self.end_id is not None else []
        split = self._split([(before + text, len(before)) for text in texts])
        return [Answer(self._tokenizer.opening_ids + each.prompt_ids, each.answer_ids + end) for each in split]

    def _split(self, texts: Sequence[tuple[str, int]], read: Sequence[TokenisedText] | None = None) -> list[Answer]:
        """Texts, all with the same beginning, and where that ends; all are read apart there where one has to be."""
        read = self._tokenizer.read([text for text, _ in texts]) if read is None else read
        found = [_cut(each, begin) for each, (_, begin) in zip(read, texts, strict=True)]
        whole = [each for each in found if each is not None]
        if len(whole) == len(texts) and all(each.prompt_ids == whole[0].prompt_ids for each in whole):
            return whole
        pieces = iter(self._tokenizer.read([piece for text, begin in texts for piece in (text[:begin], text[begin:])]))
        return [Answer(before.ids, next(pieces).ids) for before in pieces]

    def _id_of(self, character: str) -> int:
        return self._tokenizer.read([character])[0].ids[-1]

    def _sample(self, rendered: Rendered, read: TokenisedText) -> Sample:
        read = self._apart_if_needed(rendered, read)
        labels = [IGNORED] * len(read.ids)
        place = 0
        for begin, end in rendered.trained:
            while place < len(labels) and read.offsets[place][0] < begin:
                place += 1
            while place < len(labels) and read.offsets[place][0] < end:
                labels[place] = read.ids[place]
                place += 1
        return Sample(tuple(read.ids), tuple(labels))

    def _apart_if_needed(self, rendered: Rendered, read: TokenisedText) -> TokenisedText:
        """Where a token reaches over the begin of an answer: the model, going on by itself there, never sees it."""
        text, cuts = rendered.text, [begin for begin, _ in rendered.trained]
        if all(_place(read, begin) is not None for begin in cuts):
            return read
        bounds = [0, *cuts, len(text)]
        pieces = self._tokenizer.read([text[start:end] for start, end in itertools.pairwise(bounds)])
        ids = [number for piece in pieces for number in piece.ids]
        offsets = [
            (start + base, end + base)
            for base, piece in zip(bounds, pieces, strict=False)
            for start, end in piece.offsets
        ]
        return TokenisedText(ids, offsets)


def _place(read: TokenisedText, begin: int) -> int | None:
    """Of the first token from a place in the text on; None where the one before reaches over it."""
    place = bisect_left(read.offsets, begin, key=lambda offset: offset[0])
    return None if place and read.offsets[place - 1][1] > begin else place


def _cut(read: TokenisedText, begin: int) -> Answer | None:
    place = _place(read, begin)
    return None if place is None else Answer(read.ids[:place], read.ids[place:])
