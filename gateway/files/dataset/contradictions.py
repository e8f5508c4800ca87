"""Rows told apart by hashes, which Python keys anew in each process: equal ones, and ones that contradict others."""

from __future__ import annotations

from typing import NamedTuple

from policies.datasets.reader import AnyRow, PreferenceRow


class RowHashes(NamedTuple):
    """Equal for equal rows of one kind, however each is written down."""

    question: int
    """Of all before the last message, or of a preference's input; of the tools with it."""
    answer: int
    """Of the last message, or of both answers."""
    other_way_round: int | None
    """Of a preference's answers, if the other one were the better; of a chat row None."""

    @classmethod
    def of(cls, row: AnyRow) -> RowHashes:
        if isinstance(row, PreferenceRow):
            better, worse = (row.preferred, row.preferred_calls), (row.non_preferred, row.non_preferred_calls)
            return cls(hash((row.messages, row.tools)), hash((better, worse)), hash((worse, better)))
        return cls(hash((row.messages[:-1], row.tools)), hash(row.messages[-1]), None)

    @property
    def row(self) -> int:
        return hash((self.question, self.answer))


class Contradictions:
    """Knows what the rows before say."""

    def __init__(self) -> None:
        self._first_answer: dict[int, int] = {}
        self._line_of_pair: dict[tuple[int, int], int] = {}

    def has_other_answer(self, hashes: RowHashes) -> bool:
        """Whether the first row of this conversation ended with another message; of chat rows."""
        is_chat = hashes.other_way_round is None
        return is_chat and self._first_answer.setdefault(hashes.question, hashes.answer) != hashes.answer

    def swapped(self, hashes: RowHashes, line: int) -> int | None:
        """The line of an earlier preference that has the same two answers the other way round."""
        if hashes.other_way_round is None:
            return None
        self._line_of_pair.setdefault((hashes.question, hashes.answer), line)
        return self._line_of_pair.get((hashes.question, hashes.other_way_round))
