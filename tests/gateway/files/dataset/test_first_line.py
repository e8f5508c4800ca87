"""The first line tells whether a file without a telling name is JSONL, in memory and time that are bounded."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest
from gateway.files.dataset.first_line import MAX_BYTES, FirstLine


def judge(content: bytes, *, name: str = "upload", size: int = 3) -> None:
    first_line = FirstLine(name)
    for start in range(0, len(content), size):
        first_line.add(content[start : start + size])
    first_line.end()


@pytest.mark.parametrize("content", [b"{}", b"{}\n", b'{"a": 1}\r\nrubbish', b"\xef\xbb\xbf{}\n", b" {} \n"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_an_object_on_a_line_is_jsonl_however_it_arrives(content: bytes, size: int) -> None:
    judge(content, size=size)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n{}", b'"{}"', b"{}{}", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}'])
def test_anything_else_is_not(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as error:
        judge(content)
    assert error.value.code == "unsupported_file"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
def test_a_name_that_says_jsonl_is_believed(content: bytes) -> None:
    """The validator says more of such a file than that it can't be taken."""
    judge(content, name="rows.JSONL")


@pytest.mark.parametrize("size", [1000, 2 * MAX_BYTES])
def test_a_long_line_is_known_by_its_beginning(size: int) -> None:
    """It is not read to its end: what the rest of it says, the validator judges."""
    judge(b"\xef\xbb\xbf \t{" + b"x" * MAX_BYTES, size=size)


@pytest.mark.parametrize("begin", [b"[{", b"PAR1", b"   "])
def test_a_long_line_that_begins_otherwise_is_refused_before_its_end(begin: bytes) -> None:
    first_line = FirstLine("upload")
    first_line.add(begin)
    with pytest.raises(InvalidRequest, match=r"line 1 does not begin with '\{'"):
        first_line.add(b" " * 2 * MAX_BYTES)


def test_a_line_that_nests_without_end_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="nested"):
        judge(b'{"a":' * 10_000 + b"\n", size=1 << 16)
