"""What a pass over a file counts, and what it keeps."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest

from bench.screening.needles import CREDENTIALS, PERSONAL_DATA, benign_row
from policies.contract.screening import MAX_LISTED_ROWS
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.tools import Tool, ToolCall
from policies.screening import credentials, personal_data
from policies.screening.file_screening import FileScreening

MAIL = "jane.doe@corp.org"
TOKEN = "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"
"""GitHub's published example; it opens nothing."""


def row(answer: str, question: str = "Who is it?") -> ChatRow:
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def screened(rows: list[ChatRow], *screens: str) -> FileScreening:
    screening = FileScreening(screens)
    for line, each in enumerate(rows, start=1):
        screening.add(line, each)
    return screening


def test_rows_are_counted_once_and_the_first_are_listed() -> None:
    facts = screened([row(f"{MAIL} and {MAIL}")] * 50 + [row("nobody")], "pii").facts()
    (found,) = facts.found
    assert (found.id, found.count, found.of) == ("pii.email", 50, 51)
    assert found.rows == tuple(range(1, MAX_LISTED_ROWS + 1))


def test_nothing_that_was_matched_is_in_the_facts() -> None:
    facts = screened([row(MAIL), row(TOKEN)], "pii", "secrets").facts()
    assert len(facts.found) == 2
    assert "jane" not in facts.model_dump_json()
    assert "zQWB" not in facts.model_dump_json()


def test_questions_and_answers_are_searched() -> None:
    assert screened([row("no", question=MAIL)], "pii").facts().found[0].rows == (1,)


def called(arguments: str, id_: str = "call_1") -> ChatRow:
    """A row whose answer is a call of a tool."""
    calls = (ToolCall(id_, "write", arguments),)
    return ChatRow((ChatMessage("user", "Write it.", 0), ChatMessage("assistant", "", 1, tool_calls=calls)))


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps({"content": f"export TOKEN=\n{TOKEN}"}),
        json.dumps({"content": json.dumps({"content": f"a\t{TOKEN}"})}),
        json.dumps({"url": f"https://corp.org/?q=a%0A{TOKEN}"}),
        json.dumps({"content": TOKEN.replace("p", "\u0440")}),
    ],
)
def test_escapes_in_the_arguments_of_a_call_hide_no_credential(arguments: str) -> None:
    assert [each.id for each in screened([called(arguments)], "secrets").facts().found] == ["secrets.github-token"]


KEY_FILE = json.dumps({"private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC"})
AWS = json.dumps({"SecretAccessKey": "q7Rz2LmX9vKc4TbN8yWfG3hJ6pDs5ZuE1aQoVtYn"})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (KEY_FILE, "secrets.private-key"),
        (json.dumps({"file": KEY_FILE}), "secrets.private-key"),
        (AWS, "secrets.aws-secret-key"),
        (json.dumps({"file": AWS}), "secrets.aws-secret-key"),
        ("card:\n4539578763621486", "pii.card-number"),
    ],
)
def test_what_a_tool_writes_is_searched_as_it_will_be_read(content: str, kind: str) -> None:
    row_of_call = called(json.dumps({"content": content}))
    assert [each.id for each in screened([row_of_call], "secrets", "pii").facts().found] == [kind]


def test_ids_of_calls_are_searched() -> None:
    assert screened([called("{}", TOKEN)], "secrets").facts().found[0].rows == (1,)


def test_near_duplicates_are_rows_that_change_a_few_letters_only() -> None:
    rng = random.Random(1)
    rows = [benign_row(rng) for _ in range(40)]
    first = rows[3].messages
    again = row(first[1].content.upper() + "!", question=first[0].content)
    (found,) = screened([*rows, again], "near_duplicates").facts().found
    assert (found.id, found.count, found.rows) == ("near_duplicates", 1, (41,))


def test_rows_that_share_a_long_instruction_and_tools_are_no_near_duplicates() -> None:
    rng = random.Random(1)
    instruction = ChatMessage("system", " ".join(f"rule{n}" for n in range(600)), 0)
    tools = (Tool("write", json.dumps({"name": "write", "description": instruction.content})),)
    rows = [ChatRow((instruction, *benign_row(rng).messages), tools) for _ in range(40)]
    assert screened(rows, "near_duplicates").facts().found == ()


def test_short_rows_are_no_near_duplicates() -> None:
    assert screened([row("yes"), row("yes")], "near_duplicates").facts().found == ()


@pytest.mark.parametrize("screen", ["toxicity", "probe_overlap", "canary_llr", "guard"])
def test_screens_of_other_phases_are_told_with_the_reason(screen: str) -> None:
    facts = screened([row("fine")], screen).facts()
    assert facts.by == ()
    assert [each.by for each in facts.not_screened] == [screen]
    assert facts.not_screened[0].reason


def test_same_rows_give_the_same_facts_but_for_the_time() -> None:
    rows = [benign_row(random.Random(seed)) for seed in range(20)] + [row(MAIL)]
    first, second = (
        screened(rows, "pii", "secrets", "near_duplicates").facts().model_copy(update={"cost_seconds": 0.0})
        for _ in range(2)
    )
    assert first == second


def test_sample_is_bounded_and_depends_on_the_secret() -> None:
    def drawn(key: bytes) -> list[int]:
        screening = FileScreening((), sample_rows=5, sample_key=key)
        for line in range(1, 101):
            screening.add(line, row(f"answer {line}"))
        return [each.row for each in screening.sample()]

    assert len(drawn(b"a")) == 5
    assert drawn(b"a") == drawn(b"a") != drawn(b"b")


def test_what_is_kept_of_a_file_is_a_small_part_of_it() -> None:
    """1,000 rows of 8,000 letters are 8 MB; kept are 256 bytes a row and one batch of 256 rows' first words."""
    screening = FileScreening(("secrets", "pii", "near_duplicates"), sample_rows=10)
    rng = random.Random(2)
    tracemalloc.start()
    for line in range(1, 1025):
        screening.add(line, row(f"{line} " + "".join(rng.choices("abcdefgh ", k=8000))))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000


def test_every_rule_has_a_needle_in_the_bench() -> None:
    rules = {each.id for each in (*credentials.CREDENTIALS, *personal_data.PERSONAL_DATA)}
    assert rules == {f"secrets.{name}" for name in CREDENTIALS} | {f"pii.{name}" for name in PERSONAL_DATA}
