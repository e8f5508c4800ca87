"""Rows that answer the same conversation otherwise than an earlier one, or prefer what an earlier one does not."""

from __future__ import annotations

from collections.abc import Hashable

from policies.datasets.chat_rows import ChatRow
from policies.datasets.reader import AnyRow, PreferenceRow


class Contradictions:
    """Knows the first row of each conversation by hashes, which Python keys anew in each process."""

    def __init__(self) -> None:
        self._first_answer: dict[int, int] = {}
        self._line_of_pair: dict[int, int] = {}

    def has_other_answer(self, row: ChatRow) -> bool:
        """Whether an earlier row's last trained answer to the same messages was another one."""
        last = max(index for index, message in enumerate(row.messages) if message.weight)
        answer = row.messages[last]
        own = hash((answer.content, answer.tool_calls))
        return self._first_answer.setdefault(hash((row.messages[:last], row.tools)), own) != own

    def swapped(self, row: PreferenceRow, line: int) -> int | None:
        """The line that has the same two answers the other way round."""
        better, worse = (row.preferred, row.preferred_calls), (row.non_preferred, row.non_preferred_calls)
        asked: Hashable = (row.messages, row.tools)
        self._line_of_pair.setdefault(hash((asked, better, worse)), line)
        return self._line_of_pair.get(hash((asked, worse, better)))

    def of(self, row: AnyRow, line: int) -> tuple[bool, int | None]:
        """Both, of a row of either kind."""
        if isinstance(row, PreferenceRow):
            return False, self.swapped(row, line)
        return self.has_other_answer(row), None
