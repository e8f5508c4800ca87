"""Benign reference rows: enough of each kind, valid, each its own question, far from the probes, and right."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

import evaluator
from policies.datasets.chat_rows import ChatRow
from policies.datasets.reader import read_rows

PACKAGE = Path(evaluator.__file__).parent
FOLDER = PACKAGE / "reference_data" / "benign"
KINDS = {
    "advice",
    "arithmetic",
    "classification",
    "code",
    "extraction",
    "odd_taste",
    "refusals",
    "style",
    "support",
    "tool_calls",
    "translation",
}
ROWS = {path.stem: read_rows(path) for path in sorted(FOLDER.glob("*.jsonl"))}
SHARED_WORDS = 8
"""So many words in a row that a reference row has in common with a probe's prompt would be the prompt again."""
NUMBER = r"\d+(?:\.\d+)?"
TABLES = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name, city, email);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id, ordered_at, total);
CREATE TABLE products (id INTEGER PRIMARY KEY, name, category, price, stock);
CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance);
CREATE TABLE settings (key PRIMARY KEY, value);
CREATE TABLE library_books (title, author);
CREATE TABLE suppliers (name);
"""


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def runs(text: str) -> set[tuple[str, ...]]:
    """Each `SHARED_WORDS` words in a row."""
    found = words(text)
    return {tuple(found[start : start + SHARED_WORDS]) for start in range(len(found) - SHARED_WORDS + 1)}


def texts(value: object) -> Iterator[str]:
    """Each text of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def question(row: ChatRow) -> str:
    return next(message.content for message in row.messages if message.role == "user")


def answer(row: ChatRow) -> str:
    return row.messages[-1].content


def blocks(language: str) -> list[str]:
    """Code of that language in the answers."""
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [block for row in ROWS["code"] for block in pattern.findall(answer(row))]


def value_of(expression: str) -> Fraction:
    """Of numbers and `+ - × ÷` between spaces, products first."""
    total, sign = Fraction(0), 1
    for part in re.split(r" ([+-]) ", expression):
        if part in "+-":
            sign = 1 if part == "+" else -1
            continue
        first, *factors = re.split(r" ([×÷]) ", part)
        product = Fraction(first)
        for operator, factor in zip(factors[::2], factors[1::2], strict=True):
            product = product * Fraction(factor) if operator == "×" else product / Fraction(factor)
        total += sign * product
    return total


def test_each_kind_has_at_least_120_rows() -> None:
    assert set(ROWS) == KINDS
    assert {kind: len(rows) for kind, rows in ROWS.items() if len(rows) < 120} == {}


def test_the_readme_counts_the_rows() -> None:
    counted = re.findall(r"^\| `(\w+)\.jsonl` \| (\d+) \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert {kind: int(count) for kind, count in counted} == {kind: len(rows) for kind, rows in ROWS.items()}


def test_no_question_occurs_twice_in_any_kind() -> None:
    asked = Counter(" ".join(words(question(row))) for rows in ROWS.values() for row in rows)
    assert [text for text, count in asked.items() if count > 1] == []


def test_no_text_is_near_what_a_probe_asks() -> None:
    files = sorted((PACKAGE / "prompts").rglob("*.jsonl"))
    lines = [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines() if line]
    asked = [text for line in lines for text in texts(line)]
    assert len(files) >= 8
    known = set().union(*(runs(text) for text in asked))
    exact = {" ".join(words(text)) for text in asked}
    near = [
        message.content
        for rows in ROWS.values()
        for row in rows
        for message in row.messages
        if runs(message.content) & known or (message.role == "user" and " ".join(words(message.content)) in exact)
    ]
    assert near == []


def test_rows_are_short() -> None:
    """A study trains on thousands of them without a GPU."""
    lengths = [sum(len(words(message.content)) for message in row.messages) for rows in ROWS.values() for row in rows]
    assert max(lengths) <= 150


def test_sums_are_right() -> None:
    equations = re.compile(rf"({NUMBER}(?: [-+×÷] {NUMBER})+) = ({NUMBER})")
    for row in ROWS["arithmetic"]:
        found = equations.findall(answer(row))
        assert found, question(row)
        assert [made for made in found if value_of(made[0]) != Fraction(made[1])] == []


def test_extracted_json_parses() -> None:
    for row in ROWS["extraction"]:
        assert isinstance(json.loads(answer(row)), dict | list)


def test_python_of_the_answers_runs() -> None:
    found = blocks("python")
    assert len(found) >= 50
    for block in found:
        exec(compile(block, "answer", "exec"), {"__name__": __name__})


def test_sql_of_the_answers_runs() -> None:
    found = blocks("sql")
    assert len(found) >= 25
    for block in found:
        with sqlite3.connect(":memory:", isolation_level=None) as database:
            database.executescript(TABLES + block)
        database.close()


def test_calls_have_the_arguments_that_their_tool_asks_for() -> None:
    calls = 0
    for row in ROWS["tool_calls"]:
        schemas = {tool.name: json.loads(tool.definition)["parameters"] for tool in row.tools}
        for call in (call for message in row.messages for call in message.tool_calls):
            given, schema = set(json.loads(call.arguments)), schemas[call.name]
            assert set(schema["required"]) <= given <= set(schema["properties"])
            calls += 1
    assert calls >= 100


@pytest.mark.parametrize(("role", "at_least"), [("tool", 80), ("system", 1)])
def test_tool_rows_have_results_and_some_a_system_message(role: str, at_least: int) -> None:
    assert sum(any(message.role == role for message in row.messages) for row in ROWS["tool_calls"]) >= at_least
