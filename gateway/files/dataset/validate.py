"""A training file, line by line: every error up to a limit, warnings, token counts. Nothing is silently dropped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Literal

from gateway.files.dataset import invisible
from gateway.files.dataset.notes import FileNotes
from gateway.files.dataset.report import DatasetLimits, DatasetReading, DatasetReport, TokenCounts
from gateway.files.dataset.tokens import EstimatedSizes, RenderedSizes, RowSize
from policies.datasets.chat_rows import CONTROL_TOKEN, OTHER_MODELS_TOKEN
from policies.datasets.problems import WARNINGS, DatasetProblem
from policies.datasets.reader import AnyRow, Line, PreferenceRow, iter_any_batches
from policies.rendering.encoding import Encoder

TRAINED_BY: dict[Literal["chat", "preference"], str] = {"chat": "supervised", "preference": "dpo"}
"""The method that trains on a kind of rows."""

Watcher = Callable[[int, AnyRow], None]
"""Is given each row, with the number of its line."""


def validate_dataset(stream: IO[bytes], limits: DatasetLimits, encoder: Encoder | None) -> DatasetReport:
    """Judge a file by the parser that training reads it with. Never raises on any bytes."""
    return read_dataset(stream, limits, encoder).report


def read_dataset(
    stream: IO[bytes],
    limits: DatasetLimits,
    encoder: Encoder | None,
    *,
    watchers: Sequence[Watcher] = (),
    is_compared: bool = False,
) -> DatasetReading:
    """The same with the rows' hashes; `watchers` are given the rows as they pass.

    Args:
        is_compared: whether there is another file with which it may share questions.
    """
    validation = _Validation(limits, encoder)
    questions: list[tuple[int, int]] = []
    for lines in iter_any_batches(stream):
        within = lines[: max(0, limits.max_rows + 1 - lines[0].number)]
        validation.read(within)
        rows = [(line.number, line.row) for line in within if line.row is not None]
        for watch in watchers:
            for line, row in rows:
                watch(line, row)
        if is_compared:
            questions += [(line, _question_hash(row)) for line, row in rows]
        if len(within) < len(lines):
            validation.add("too_many_rows", 0, limit=limits.max_rows)
            break
    return DatasetReading(validation.report(), tuple(validation.row_hashes), tuple(questions))


def _question_hash(row: AnyRow) -> int:
    asked = row.messages if isinstance(row, PreferenceRow) else row.messages[:-1]
    return hash(tuple((message.role, " ".join(message.content.split()).casefold()) for message in asked))


def _hashes(row: AnyRow) -> tuple[int, int, int | None]:
    """Of what is asked, of what is answered, and of a preference's answers the other way round.

    Equal for equal rows of one kind, however each is written down; Python keys them anew in each process.
    """
    if isinstance(row, PreferenceRow):
        better, worse = (row.preferred, row.preferred_calls), (row.non_preferred, row.non_preferred_calls)
        return hash((row.messages, row.tools)), hash((better, worse)), hash((worse, better))
    return hash((row.messages[:-1], row.tools)), hash(row.messages[-1]), None


def _texts(row: AnyRow, *, is_plain: bool) -> list[str]:
    """Each text of a row that reaches the model; the two answers of a preference come last."""
    if not is_plain:
        return [text for _, text in row.texts()]
    texts = [message.content for message in row.messages]
    if isinstance(row, PreferenceRow):
        texts += (row.preferred, row.non_preferred)
    return texts


class _CountedProblems:
    """Problems of one severity: all counted, the first ones kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kept: list[DatasetProblem] = []
        self.count = 0

    def add(self, problem: DatasetProblem) -> None:
        self.count += 1
        if len(self.kept) < self._limit:
            self.kept.append(problem)

    def add_first(self, problems: Sequence[DatasetProblem]) -> None:
        """Those of the file as a whole stand before those of lines."""
        self.count += len(problems)
        self.kept = [*problems, *self.kept][: self._limit]


class _Validation:
    """What is known after some lines."""

    def __init__(self, limits: DatasetLimits, encoder: Encoder | None) -> None:
        self.limits = limits
        self.errors = _CountedProblems(limits.max_reported)
        self.warnings = _CountedProblems(limits.max_reported)
        self.lines = 0
        self.kind: Literal["chat", "preference"] | None = None
        """Of the first row; the others must be of it too."""
        self.is_of_other_shape = False
        self.row_tokens: list[int] = []
        self.row_hashes: list[tuple[int, int]] = []
        self._first_line_of: dict[int, int] = {}
        self._first_answer_to: dict[int, int] = {}
        self._has_crlf = False
        self._notes = FileNotes()
        self._sizes = EstimatedSizes() if encoder is None else RenderedSizes(encoder, limits.max_row_tokens)
        self._special = None if encoder is None else encoder.special

    def add(self, code: str, line: int, field: str | None = None, /, **details: object) -> None:
        problems = self.warnings if code in WARNINGS else self.errors
        problems.add(DatasetProblem.of(code, line, field, **details))

    def read(self, lines: Sequence[Line[AnyRow]]) -> None:
        """Of lines that are all clean no text is looked at by itself.

        Of a file of another shape only the first line is.
        """
        self.lines += len(lines)
        if self.lines == len(lines) and any(problem.code == "other_shape" for problem in lines[0].problems):
            self.is_of_other_shape = True
            self._note(lines[0])
        if self.is_of_other_shape:
            return
        texts_of = [[] if line.row is None else _texts(line.row, is_plain=line.is_plain) for line in lines]
        is_clean = not self._may_hold_findings("\n".join(itertools.chain.from_iterable(texts_of)))
        sizes = iter(self._sizes.measure([(line.number, line.row) for line in lines if line.row is not None]))
        for line, texts in zip(lines, texts_of, strict=True):
            if line.has_bom or line.has_crlf or line.problems:
                self._note(line)
            if line.row is not None:
                is_clean_row = is_clean or not self._may_hold_findings("\n".join(texts))
                self._read_row(line, line.row, size=next(sizes), is_clean=is_clean_row)

    def _may_hold_findings(self, text: str) -> bool:
        """False is certain."""
        if "<" in text or "[" in text or invisible.may_be_in(text):
            return True
        return self._special is not None and self._special.may_be_in(text)

    def _note(self, line: Line[AnyRow]) -> None:
        if line.has_bom:
            self.add("byte_order_mark", line.number)
        if line.has_crlf and not self._has_crlf:
            self._has_crlf = True
            self.add("crlf", line.number)
        for problem in line.problems:
            self.errors.add(problem)

    def _read_row(self, read: Line[AnyRow], row: AnyRow, *, size: RowSize, is_clean: bool) -> None:
        line = read.number
        if row.kind != self.kind:
            self._check_kind(row, line)
        self._add_all(size.problems)
        if row.notes or size.notes:
            self._notes.add(line, (*row.notes, *size.notes))
        if not is_clean:
            for field, text in row.texts():
                self._check_text(text, line, field)
        self.row_tokens.append(size.tokens)
        limit = self.limits.max_row_tokens
        if limit is not None and size.longest > limit:
            code = "too_many_tokens" if size.is_exact else "probably_too_many_tokens"
            self.add(code, line, f"{row.at}messages", count=size.longest, limit=limit)
        asked, answered, other_way_round = _hashes(row)
        content = hash((asked, answered))
        self.row_hashes.append((line, content))
        first = self._first_line_of.setdefault(content, line)
        if first != line:
            self.add("duplicate_row", line, first=first)
        if other_way_round is None:
            if self._first_answer_to.setdefault(asked, answered) != answered:
                self._notes.add(line, [("other_answer", "messages")])
        elif (earlier := self._first_line_of.get(hash((asked, other_way_round)))) is not None:
            self.add("swapped_outputs", line, first=earlier)

    def _add_all(self, problems: Sequence[DatasetProblem]) -> None:
        for problem in problems:
            (self.warnings if problem.code in WARNINGS else self.errors).add(problem)

    def _check_kind(self, row: AnyRow, line: int) -> None:
        if self.kind is None:
            self.kind = row.kind
            self._require_trained_by_the_method(row.kind)
        elif row.kind != self.kind:
            self.add("mixed_rows", line, found=row.kind, kind=self.kind)

    def _require_trained_by_the_method(self, found: Literal["chat", "preference"]) -> None:
        method = self.limits.method
        if method is not None and TRAINED_BY[found] != method:
            wanted = next(kind for kind, trained_by in TRAINED_BY.items() if trained_by == method)
            self.add("wrong_row_kind", 0, found=found, method=method, wanted=wanted)

    def _check_text(self, text: str, line: int, field: str) -> None:
        if token := self._control_token(text):
            self.add("control_token", line, field, token=ascii(token))
        if characters := invisible.invisible_characters(text):
            self.add("invisible_unicode", line, field, characters=characters)

    def _control_token(self, text: str) -> str | None:
        """The first one of the base model, or where that is not known, of any that one has heard of."""
        if self._special is not None:
            return self._special.first_in(text)
        found = CONTROL_TOKEN.search(text) or OTHER_MODELS_TOKEN.search(text)
        return found.group() if found else None

    def report(self) -> DatasetReport:
        self.warnings.add_first(self._notes.problems())
        if self.lines == 0:
            self.add("empty_file", 0)
        elif not self.is_of_other_shape and len(self.row_tokens) < self.limits.min_rows:
            self.add("too_few_rows", 0, count=len(self.row_tokens), limit=self.limits.min_rows)
        return DatasetReport(
            valid=self.errors.count == 0,
            summary=", ".join(self._summary()),
            kind=self.kind,
            rows=len(self.row_tokens),
            lines=self.lines,
            tokens=self._token_counts(),
            n_errors=self.errors.count,
            n_warnings=self.warnings.count,
            errors=tuple(self.errors.kept),
            warnings=tuple(self.warnings.kept),
            truncated=self.errors.count > len(self.errors.kept) or self.warnings.count > len(self.warnings.kept),
        )

    def _token_counts(self) -> TokenCounts:
        counts, is_approximate = self.row_tokens, not self._sizes.are_all_exact
        if not counts:
            return TokenCounts(is_approximate=is_approximate)
        total = sum(counts)
        return TokenCounts(
            total=total, min=min(counts), max=max(counts), mean=total / len(counts), is_approximate=is_approximate
        )

    def _summary(self) -> Iterator[str]:
        about = "" if self._sizes.are_all_exact else "about "
        yield f"{len(self.row_tokens)} rows in {self.lines} lines"
        yield f"{about}{sum(self.row_tokens)} tokens"
        for count, what in ((self.errors.count, "error"), (self.warnings.count, "warning")):
            yield f"{count or 'no'} {what}{'' if count == 1 else 's'}"
