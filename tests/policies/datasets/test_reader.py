"""The row parser that validation and training share."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.datasets.chat_rows import MAX_MESSAGES
from policies.datasets.reader import (
    MAX_BLANK_LINES,
    MAX_LINE_BYTES,
    ChatMessage,
    ChatRow,
    ParsedLine,
    iter_rows,
    read_rows,
)
from policies.datasets.row_findings import MAX_PROBLEMS_PER_ROW
from policies.datasets.tools import Tool
from policies.errors import DatasetError

USER = '{"role": "user", "content": "Hi"}'
ANSWER = '{"role": "assistant", "content": "Hello"}'
GOOD = f'{{"messages": [{USER}, {ANSWER}]}}'


def parse(content: bytes) -> list[ParsedLine]:
    return list(iter_rows(io.BytesIO(content)))


def found(line: str | bytes) -> list[tuple[str | None, str]]:
    """Field and code of every problem of one line."""
    content = line if isinstance(line, bytes) else line.encode()
    parsed = parse(content)
    assert len(parsed) == 1
    assert (parsed[0].row is None) == bool(parsed[0].problems)
    return [(problem.field, problem.code) for problem in parsed[0].problems]


def messages(*values: str) -> str:
    return f'{{"messages": [{", ".join(values)}]}}'


def user(content: str) -> str:
    return messages(f'{{"role": "user", "content": {content}}}', ANSWER)


def test_row_is_typed() -> None:
    line = messages('{"role": "system", "content": "Be kind."}', USER, ANSWER[:-1] + ', "weight": 0}', USER, ANSWER)
    assert parse(line.encode())[0].row == ChatRow(
        (
            ChatMessage("system", "Be kind.", 0),
            ChatMessage("user", "Hi", 0),
            ChatMessage("assistant", "Hello", 0),
            ChatMessage("user", "Hi", 0),
            ChatMessage("assistant", "Hello", 1),
        )
    )


def test_tools_are_kept() -> None:
    tool = '{"type": "function", "function": {"name": "f", "strict": null}}'
    row = parse((GOOD[:-1] + f', "tools": [{tool}], "parallel_tool_calls": false}}').encode())[0].row
    assert row is not None
    assert (row.tools, row.parallel_tool_calls) == ((Tool("f", '{"name": "f"}'),), False)


AT0 = "messages[0]"
WRONG_LINES: dict[str, tuple[str | bytes, list[tuple[str | None, str]]]] = {
    "too long": (b" " * (MAX_LINE_BYTES + 1), [(None, "line_too_long")]),
    "not UTF-8": (b'{"messages": "\xff"}', [(None, "invalid_utf8")]),
    "UTF-16": (GOOD.encode("utf-16"), [(None, "invalid_utf8")]),
    "cut off": (GOOD[:-1], [(None, "invalid_json")]),
    "single quotes": ("{'messages': []}", [(None, "invalid_json")]),
    "two objects": (GOOD + GOOD, [(None, "trailing_data")]),
    "trailing comma": (GOOD + ",", [(None, "trailing_data")]),
    "key twice": ('{"messages": [], "messages": []}', [(None, "duplicate_key")]),
    "inner key twice": (messages('{"role": "user", "role": "system", "content": "x"}'), [(None, "duplicate_key")]),
    "NaN": ('{"messages": NaN}', [(None, "non_finite_number")]),
    "minus infinity": ('{"messages": -Infinity}', [(None, "non_finite_number")]),
    "overflowing number": ('{"messages": 1e999}', [(None, "non_finite_number")]),
    "endless integer": ('{"messages": ' + "9" * 5000 + "}", [(None, "non_finite_number")]),
    "deep": ("[" * 100_000, [(None, "too_deep")]),
    "deep tool": (
        GOOD[:-1] + ', "functions": [{"name": "f", "parameters": ' + '{"a":' * 40 + "1" + "}" * 41 + "]}",
        [("functions[0].parameters" + ".a" * 32, "too_deep")],
    ),
    "a list": ("[]", [(None, "not_an_object")]),
    "a string": ('"x"', [(None, "not_an_object")]),
    "no messages": ("{}", [("messages", "missing_field")]),
    "a key that says something": (GOOD[:-1] + ', "prompt": "x"}', [("prompt", "unknown_field")]),
    "a misspelt key": (GOOD[:-1] + ', "tool": [{}]}', [("tool", "unknown_field")]),
    "messages no list": ('{"messages": {}}', [("messages", "wrong_type")]),
    "no message": ('{"messages": []}', [("messages", "empty_messages")]),
    "many messages": (messages(*[USER] * (MAX_MESSAGES + 1)), [("messages", "too_many_messages")]),
    "message no object": (messages('"x"', ANSWER), [(AT0, "wrong_type")]),
    "no role": (messages('{"content": "x"}', ANSWER), [(f"{AT0}.role", "missing_field")]),
    "other role": (messages('{"role": "User", "content": "x"}', ANSWER), [(f"{AT0}.role", "unknown_role")]),
    "role no string": (messages('{"role": [], "content": "x"}', ANSWER), [(f"{AT0}.role", "unknown_role")]),
    "no content": (messages('{"role": "user"}', ANSWER), [(f"{AT0}.content", "missing_field")]),
    "null content": (user("null"), [(f"{AT0}.content", "wrong_type")]),
    "image": (user('[{"type": "image_url", "image_url": {}}]'), [(f"{AT0}.content[0]", "unsupported_part")]),
    "part without type": (user('[{"text": "a"}]'), [(f"{AT0}.content[0]", "wrong_type")]),
    "text part with more": (
        user('[{"type": "text", "text": "a", "x": 1}]'),
        [(f"{AT0}.content[0]", "unsupported_part")],
    ),
    "no parts": (user("[]"), [(f"{AT0}.content", "wrong_type")]),
    "blank parts": (user('[{"type": "text", "text": " "}]'), [(f"{AT0}.content", "empty_content")]),
    "empty content": (user('""'), [(f"{AT0}.content", "empty_content")]),
    "blank content": (user('" \\n"'), [(f"{AT0}.content", "empty_content")]),
    "name": (
        messages('{"role": "user", "content": "x", "name": "Al B"}', ANSWER),
        [(f"{AT0}.name", "invalid_name")],
    ),
    "weight 2": (messages(USER, ANSWER[:-1] + ', "weight": 2}'), [("messages[1].weight", "invalid_weight")]),
    "weight true": (messages(USER, ANSWER[:-1] + ', "weight": true}'), [("messages[1].weight", "invalid_weight")]),
    "weight 0.5": (messages(USER, ANSWER[:-1] + ', "weight": 0.5}'), [("messages[1].weight", "invalid_weight")]),
    "user weight": (messages(USER[:-1] + ', "weight": 1}', ANSWER), [(f"{AT0}.weight", "misplaced_weight")]),
    "user last": (messages(ANSWER, USER), [("messages[1].role", "last_message_not_assistant")]),
    "answer first": (messages(ANSWER, USER, ANSWER), [("messages[0].role", "answer_without_prompt")]),
    "all weights 0": (messages(ANSWER[:-1] + ', "weight": 0}'), [("messages", "nothing_to_train_on")]),
    "NUL": (user('"a\\u0000b"'), [(f"{AT0}.content", "control_character")]),
    "surrogate": (user('"\\ud83d"'), [(f"{AT0}.content", "lone_surrogate")]),
    "tools no list": (GOOD[:-1] + ', "tools": {}}', [("tools", "wrong_type")]),
    "parallel": (GOOD[:-1] + ', "parallel_tool_calls": 1}', [("parallel_tool_calls", "wrong_type")]),
}


SAME_AS_GOOD = {
    "weight 1.0": messages(USER, ANSWER[:-1] + ', "weight": 1.0}'),
    "null weight": messages(USER[:-1] + ', "weight": null}', ANSWER[:-1] + ', "weight": null}'),
    "exported nulls": messages(
        USER, ANSWER[:-1] + ', "refusal": null, "annotations": [], "audio": null, "tool_calls": null, "name": null}'
    ),
    "null tools": GOOD[:-1] + ', "tools": null, "parallel_tool_calls": null, "functions": []}',
    "parallel calls of no tools": GOOD[:-1] + ', "tools": [], "parallel_tool_calls": true}',
    "text parts": messages(
        '{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}', ANSWER
    ),
}


@pytest.mark.parametrize("name", SAME_AS_GOOD)
def test_what_says_nothing_more_is_the_same_row(name: str) -> None:
    assert parse(SAME_AS_GOOD[name].encode())[0].row == parse(GOOD.encode())[0].row


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n \r\n\t\n", "\n" * MAX_BLANK_LINES])
def test_blank_lines_at_the_end_are_passed_over(end: str) -> None:
    assert [line.problems for line in parse((GOOD + end).encode())] == [()]


@pytest.mark.parametrize(
    ("content", "lines"),
    [(f"\n{GOOD}\n", [1]), (f"{GOOD}\n \n\n{GOOD}\n\n", [2, 3]), ("\n" * (MAX_BLANK_LINES + 1), [1])],
)
def test_other_blank_lines_are_problems(content: str, lines: list[int]) -> None:
    blank = [line.number for line in parse(content.encode()) if [each.code for each in line.problems] == ["blank_line"]]
    assert blank[: len(lines)] == lines


def test_as_many_messages_as_the_limit_are_allowed() -> None:
    """One more is a problem, above."""
    line = messages(*[USER] * (MAX_MESSAGES - 1), ANSWER)
    assert found(line) == []


@pytest.mark.parametrize("name", WRONG_LINES)
def test_wrong_line_is_reported_with_field_and_code(name: str) -> None:
    line, expected = WRONG_LINES[name]
    assert found(line) == expected


@pytest.mark.parametrize(
    "text", ["a <| b |> c", "x <|> y", "<b>bold</b>", "[INSTALL]", "1 < 2 | 3 > 2", "\\ud83d\\ude00"]
)
def test_ordinary_text_is_no_control_token(text: str) -> None:
    assert found(user(f'"{text}"')) == []


def test_all_problems_of_a_row_are_reported_up_to_a_limit() -> None:
    row = json.dumps({f"key{n}": 1 for n in range(100)} | {"messages": []})
    assert len(found(row)) == MAX_PROBLEMS_PER_ROW


def test_longest_line_is_read_with_any_line_end_and_byte_order_mark() -> None:
    filler = MAX_LINE_BYTES - len(user('""')) + 2
    line = user(f'"{"x" * (filler - 2)}"').encode()
    assert len(line) == MAX_LINE_BYTES
    parsed = parse(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\n" + line)
    assert [line.row is not None for line in parsed] == [True] * 3
    assert (parsed[0].has_bom, parsed[0].has_crlf, parsed[1].has_crlf) == (True, True, False)


def test_line_after_a_huge_one_keeps_its_number() -> None:
    parsed = parse(b"x" * (3 * MAX_LINE_BYTES) + b"\n" + GOOD.encode() + b"\n")
    assert [(line.number, line.row is not None) for line in parsed] == [(1, False), (2, True)]


def test_byte_order_mark_inside_the_file_is_an_error() -> None:
    parsed = parse(GOOD.encode() + b"\n\xef\xbb\xbf" + GOOD.encode())
    assert [problem.code for problem in parsed[1].problems] == ["invalid_json"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_file_without_lines_has_no_rows(content: bytes) -> None:
    assert parse(content) == []


def test_read_rows_gives_every_row(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{GOOD}\n{GOOD}\n")
    assert len(read_rows(path)) == 2


def test_read_rows_stops_at_the_first_bad_line_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{GOOD}\n{{}}\n{GOOD}\n")
    with pytest.raises(DatasetError, match=r"train\.jsonl: line 2: messages: the field is missing"):
        read_rows(path)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parser_raise(content: bytes) -> None:
    for line in parse(content):
        assert (line.row is None) == bool(line.problems)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "weight", "tools", "x"]), inner, max_size=4)
    ),
)


@given(JSON_VALUES)
def test_no_json_value_makes_the_parser_raise(value: object) -> None:
    for line in parse(json.dumps(value).encode()):
        assert (line.row is None) == bool(line.problems)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(["{", "}", "[", "]", ":", ",", '"', "\x00", "\udcff", "\\"]))
def test_changed_byte_gives_a_row_or_a_problem_and_never_an_empty_text(place: int, byte: str) -> None:
    """Whatever one byte becomes: either the row still says something in every message, or there is a problem."""
    content = (GOOD[:place] + byte + GOOD[place + 1 :]).encode(errors="surrogateescape")
    (line,) = parse(content)
    if line.row is None:
        assert line.problems
    else:
        assert all(message.content.strip() for message in line.row.messages)


@given(st.integers(1, len(GOOD) - 1))
def test_cut_line_is_always_a_problem(length: int) -> None:
    assert found(GOOD[:length]) != []
