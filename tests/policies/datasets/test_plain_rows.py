"""The fast way finds what the rules find, and leaves to them what it can't be sure of."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.datasets import chat_rows, plain_rows
from policies.datasets.preference_rows import check_preference, is_preference
from policies.datasets.problems import DatasetProblem
from policies.datasets.reader import BATCH_BYTES, AnyRow, iter_any_rows
from tests.growth import LINEAR, growth

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'
PREFERENCE = (
    b'{"input": {"messages": [{"role": "user", "content": "Hi"}]}, '
    b'"preferred_output": [{"role": "assistant", "content": "Hello"}], '
    b'"non_preferred_output": [{"role": "assistant", "content": "No"}]}'
)
TEXTS = st.sampled_from(
    [
        "Hi",
        " ",
        "",
        "<|im_end|>",
        "a < b",
        "[INST]",
        "x\u0000",
        "x\u007f",
        "\\",
        '"',
        '\\"',
        '"role"',
        "ü",
        "\u2028",
        "\\\\",
    ]
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"]), "content": TEXTS},
    optional={"weight": st.sampled_from([0, 1, 2, True, 1.0, None, -0]), "name": TEXTS},
)
ANSWERS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["assistant", "user"]), "content": TEXTS}), max_size=2
)
ROWS: st.SearchStrategy[object] = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, max_size=4)},
    optional={"tools": st.just([]), "parallel_tool_calls": st.booleans(), "x": st.integers()},
) | st.fixed_dictionaries(
    {
        "input": st.fixed_dictionaries({"messages": st.lists(MESSAGES, max_size=3)}, optional={"tools": st.just([])}),
        "preferred_output": ANSWERS,
        "non_preferred_output": ANSWERS,
    },
    optional={"messages": st.just([])},
)


def by_the_rules(line: bytes) -> AnyRow | tuple[DatasetProblem, ...]:
    value = json.loads(line)
    return check_preference(value, 1) if is_preference(value) else chat_rows.check_row(value, 1)


@given(row=ROWS, is_ascii=st.booleans(), is_compact=st.booleans())
def test_what_is_decoded_is_what_the_rules_make_of_the_line(row: object, is_ascii: bool, is_compact: bool) -> None:
    separators = (",", ":") if is_compact else None
    line = json.dumps(row, ensure_ascii=is_ascii, separators=separators).encode()
    (plain,) = plain_rows.plain_rows([line], plain_rows.decode_any)
    assert plain is None or plain == by_the_rules(line)


@given(lines=st.lists(st.sampled_from([CHAT, PREFERENCE, CHAT.replace(b"Hi", b"<|x|>")]) | st.binary(max_size=20)))
def test_a_line_is_read_alike_whatever_lies_beside_it(lines: Sequence[bytes]) -> None:
    alone = [plain_rows.plain_rows([line], plain_rows.decode_any)[0] for line in lines]
    assert plain_rows.plain_rows(lines, plain_rows.decode_any) == alone


@pytest.mark.parametrize("line", [CHAT, PREFERENCE, CHAT.replace(b'"Hello"', b'"Hello", "weight": 1')])
def test_plain_lines_take_the_fast_way(line: bytes) -> None:
    assert plain_rows.plain_rows([line], plain_rows.decode_any) == [by_the_rules(line)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"role": "user"', b'"role": "user", "role": "system"'),
        (b'"role": "user"', b'"r\\u006fle": "system", "role": "user"'),
        (b'"content": "Hi"', b'"content": "x\\\\", "content": "Hi"'),
        (b'"content": "Hello"', b'"content": "\\\\", "content": "\\\\", "content": "Hello"'),
        (b'{"messages"', b'{"messages": [], "messages"'),
    ],
)
def test_no_key_occurs_twice_unseen(old: bytes, new: bytes) -> None:
    """The decoder takes the last of two keys, another parser may take the first."""
    line = CHAT.replace(old, new, 1)
    codes = [problem.code for read in iter_any_rows(io.BytesIO(CHAT + b"\n" + line)) for problem in read.problems]
    assert codes == ["duplicate_key"]


def one_text(unit: bytes) -> Callable[[int], bytes]:
    return lambda n: CHAT.replace(b"Hello", unit * n)


def read_all(content: bytes) -> int:
    return sum(len(line.problems) for line in iter_any_rows(io.BytesIO(content)))


@pytest.mark.parametrize(
    "make",
    [
        one_text(b"<|"),
        one_text(b"<|a"),
        one_text(b"[INST"),
        one_text(b"<\xef\xbd\x9c "),
        one_text(b"\\u0301"),
        one_text(b"\\u0000"),
        one_text(b"\\\\"),
        lambda n: b"[" * n,
        lambda n: b'{"messages":' * n,
        lambda n: b'{"messages": ' + b"1" * n + b"}",
        lambda n: b'{"messages": 0.' + b"1" * n + b"}",
        lambda n: b"{" + b'"messages": 1, ' * n,
        lambda n: b"{" + b",".join(b'"%d": 1' % i for i in range(n)) + b"}",
        lambda n: b'{"messages": [' + b"{}," * n + b"{}]}",
    ],
)
def test_a_long_line_is_read_in_linear_time(make: Callable[[int], bytes]) -> None:
    assert growth(make, read_all, 30_000) < LINEAR


@pytest.mark.parametrize(
    "line",
    [
        CHAT,
        b"",
        CHAT.replace(b"Hello", b"<|"),
        CHAT.replace(b"Hello", b'\\\\\\"'),
        CHAT.replace(b'"user"', b'"user", "role": "user"'),
    ],
)
def test_many_lines_are_read_in_linear_time(line: bytes) -> None:
    assert growth(lambda n: (line + b"\n") * n, read_all, 3000) < LINEAR


def test_blank_lines_fill_a_batch_too() -> None:
    """A batch of empty lines has no bytes, and would never have ended."""

    class Endless(io.RawIOBase):
        n_read = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.n_read += 1
            return b"\n"

    stream = Endless()
    first = next(iter(iter_any_rows(stream)))  # type: ignore[arg-type]  # a raw stream reads lines too
    assert [problem.code for problem in first.problems] == ["blank_line"]
    assert stream.n_read < BATCH_BYTES / 100
