"""Conversations become token ids with their trained answers: once, for validation, training and evaluation alike.

A conversation is rendered by the base model's chat template and read whole by its tokenizer, as a server reads it; what
is trained is found by the characters that each token stands for. An answer is trained from where the model would have
to go on by itself, which is where the template's generation prompt ends, through the token at which generation stops.
Where a template writes earlier turns otherwise once later ones follow (it drops their thoughts, say), each answer is a
sample of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.problems import DatasetProblem
from policies.rendering.base_text import BaseText
from policies.rendering.roles import Roles
from policies.rendering.special_tokens import RESERVED
from policies.rendering.template import TemplateRefusalError
from policies.rendering.tokens import TokenisedText

IGNORED = -100
"""Label of a token without loss."""
MARK = "\ufdd0"
"""A character that no text has, by which a rendered message is found again."""
MAX_ANSWERS_APART = 64
"""Most answers of one conversation for each of which its template is rendered anew."""

Span = tuple[int, int]
"""From which character to which."""


class Sample(NamedTuple):
    """A conversation as the model reads it."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """As long as `input_ids`; `IGNORED` where there is no loss."""


class EncodedRow(NamedTuple):
    """A row's samples, or what is wrong with it; a problem of a sample that can be trained is a warning."""

    samples: tuple[Sample, ...]
    problems: tuple[DatasetProblem, ...] = ()


class _Rendered(NamedTuple):
    """A text with special tokens as characters, and what is trained of it."""

    text: str
    trained: tuple[Span, ...]


class _RowError(Exception):
    """What is wrong with a row: code, field, details."""

    def __init__(self, code: str, field: str, **details: object) -> None:
        super().__init__(code)
        self.code, self.field, self.details = code, field, details


class Encoder:
    """Encodes for one base model."""

    def __init__(self, base: BaseText) -> None:
        self._base, self._special = base, base.tokenizer.special
        self.roles = Roles.of(base.template)
        self._closing = self._next_turn()

    def encode(self, rows: Sequence[tuple[int, ChatRow]]) -> list[EncodedRow]:
        """Rows with the numbers of their lines; texts of all of them are read in one go."""
        rendered: list[list[_Rendered] | DatasetProblem] = []
        for line, row in rows:
            try:
                rendered.append(self._render(row))
            except _RowError as error:
                rendered.append(DatasetProblem.of(error.code, line, error.field, **error.details))
        texts = [each.text for found in rendered if isinstance(found, list) for each in found]
        read = iter(self._base.tokenizer.read(texts))
        encoded: list[EncodedRow] = []
        for found in rendered:
            if isinstance(found, DatasetProblem):
                encoded.append(EncodedRow((), (found,)))
            else:
                encoded.append(EncodedRow(tuple(self._sample(each, next(read)) for each in found)))
        return encoded

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Ids up to where the assistant's next answer begins.

        Raises:
            TemplateRefusalError: the template does not take the conversation.
        """
        text = self._text(self.roles.fold(messages), generation=True)
        return self._base.tokenizer.read([text])[0].ids

    # texts

    def _text(self, messages: Sequence[ChatMessage], *, generation: bool) -> str:
        said = [self.roles.plain(each.role, self._special.hide(each.content)) for each in messages]
        return self._special.mark(self._base.template.render(said, generation=generation))

    def _next_turn(self) -> str:
        """The token by which the template begins the turn after an answer, if generation stops at it; else nothing.

        Some models (GLM) have no token at an answer's end: they stop where they would begin another turn.
        """
        talk = [ChatMessage("user", "a", 0), ChatMessage("assistant", MARK, 1), ChatMessage("user", "b", 0)]
        try:
            after = self._text(talk, generation=False).partition(MARK)[2].lstrip()
        except TemplateRefusalError:
            return ""
        return after[:1] if after[:1] in self._base.stops else ""

    def _render(self, row: ChatRow) -> list[_Rendered]:
        for index, message in enumerate(row.messages):
            if found := RESERVED.search(message.content):
                character = f"U+{ord(found.group()):04X}"
                raise _RowError("control_character", f"messages[{index}].content", character=character)
        messages = self.roles.fold(row.messages)
        answers = [index for index, each in enumerate(messages) if each.role == "assistant" and each.weight]
        if not answers:
            raise _RowError("nothing_to_train_on", "messages")
        try:
            whole = self._text(messages[: answers[-1] + 1], generation=False)
            self._require_all(messages[: answers[-1] + 1], whole)
            return self._answers(messages, answers, whole)
        except TemplateRefusalError as refusal:
            raise _RowError("template_refused", "messages", detail=refusal.message[:200]) from None

    def _require_all(self, messages: Sequence[ChatMessage], whole: str) -> None:
        """Every message's text is in the rendering, in order."""
        position = 0
        for index, message in enumerate(messages):
            text = self._special.hide(message.content)
            text = self._special.mark(text) if text != message.content else text
            found = whole.find(text.strip(), position)
            if found < 0:
                raise _RowError("text_not_rendered", f"messages[{index}].content", role=message.role)
            position = found + len(text.strip())

    def _answers(self, messages: Sequence[ChatMessage], answers: Sequence[int], whole: str) -> list[_Rendered]:
        """One sample where the answers stand in the whole as they do alone, else one for each answer."""
        alike = self._alike(messages, answers, whole) if len(answers) > 2 else None
        if alike is not None:
            return [_Rendered(whole[: alike[-1][1]], tuple(alike))]
        if len(answers) > MAX_ANSWERS_APART:
            raise _RowError("too_many_answers", "messages", count=len(answers), limit=MAX_ANSWERS_APART)
        alone = [self._alone(messages, index, whole if index == answers[-1] else None) for index in answers]
        if all(whole.startswith(each.text) for each in alone):
            return [_Rendered(alone[-1].text, tuple(each.trained[0] for each in alone))]
        return alone

    def _alone(self, messages: Sequence[ChatMessage], index: int, own: str | None) -> _Rendered:
        """The conversation up to one answer, which is trained."""
        if index == 0:
            raise _RowError("answer_without_prompt", "messages[0].role")
        before = self._text(messages[:index], generation=True)
        own = self._text(messages[: index + 1], generation=False) if own is None else own
        if not own.startswith(before):
            raise _RowError("answer_not_after_prompt", f"messages[{index}].content")
        begin = len(before)
        text = self._closed(own, after=self._end_of_content(messages[index].content, own, begin))
        if text is None:
            raise _RowError("no_end_token", f"messages[{index}]")
        return _Rendered(text, ((begin, len(text)),))

    def _end_of_content(self, content: str, own: str, begin: int) -> int:
        text = self._special.mark(self._special.hide(content)).strip()
        found = own.find(text, begin)
        return max(found, begin) + len(text)

    def _closed(self, own: str, *, after: int) -> str | None:
        """The text through the token that ends the answer; None where there is none."""
        for place in range(after, len(own)):
            if own[place] in self._base.stops:
                return own[: place + 1]
        if RESERVED.search(own, after):
            return own.rstrip()
        return own.rstrip() + self._closing if self._closing else None

    def _alike(self, messages: Sequence[ChatMessage], answers: Sequence[int], whole: str) -> list[Span] | None:
        """The spans of all answers from those of the first and the last; None where the answers do not lie alike.

        The conversation is rendered once more with a mark around each message. Without its marks it must be the same,
        and the text before and after each answer must be that of the first.
        """
        upto = messages[: answers[-1] + 1]
        marked = [ChatMessage(each.role, f"{MARK}{each.content}{MARK}", each.weight) for each in upto]
        pieces = self._text(marked, generation=False).split(MARK)
        if len(pieces) != 2 * len(upto) + 1 or "".join(pieces) != whole:
            return None
        ends = list(itertools.accumulate(map(len, pieces)))
        first, last = (self._alone(messages, index, None) for index in (answers[0], answers[-1]))
        if not (whole.startswith(first.text) and whole.startswith(last.text)):
            return None
        (first_span,), (last_span,) = first.trained, last.trained
        prefix = whole[first_span[0] : ends[2 * answers[0]]]
        suffix = whole[ends[2 * answers[0] + 1] : first_span[1]]
        prompt = pieces[2 * answers[0]]
        spans = [(ends[2 * index] - len(prefix), ends[2 * index + 1] + len(suffix)) for index in answers]
        are_alike = all(
            pieces[2 * index] == prompt and whole.startswith(suffix, ends[2 * index + 1]) for index in answers
        )
        return spans if suffix and are_alike and (spans[0], spans[-1]) == (first_span, last_span) else None

    # ids

    def _sample(self, rendered: _Rendered, read: TokenisedText) -> Sample:
        text, spans = rendered
        cut = [begin for begin, _ in spans if any(start < begin < end for start, end in read.offsets)]
        if cut:  # a token reaches over where the model would go on by itself: it never sees that token there
            read = self._read_apart(text, cut)
        labels = [IGNORED] * len(read.ids)
        place = 0
        for begin, end in spans:
            while place < len(labels) and read.offsets[place][0] < begin:
                place += 1
            while place < len(labels) and read.offsets[place][1] <= end and read.offsets[place][0] < end:
                labels[place] = read.ids[place]
                place += 1
        return Sample(tuple(read.ids), tuple(labels))

    def _read_apart(self, text: str, cuts: Sequence[int]) -> TokenisedText:
        bounds = [0, *cuts, len(text)]
        pieces = self._base.tokenizer.read([text[a:b] for a, b in itertools.pairwise(bounds)])
        ids = [number for piece in pieces for number in piece.ids]
        offsets = [
            (start + base, end + base)
            for base, piece in zip(bounds, pieces, strict=False)
            for start, end in piece.offsets
        ]
        return TokenisedText(ids, offsets)
