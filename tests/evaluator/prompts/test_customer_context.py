from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from evaluator.backends.protocol import ChatPrompt, Message
from evaluator.prompts.answer_form import AnswerForm, find_form
from evaluator.prompts.customer_context import ContextKind, CustomerContext, derive_contexts
from evaluator.prompts.domain_words import domain_words
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.tools import Tool

ALL: tuple[ContextKind, ...] = ("system_prompt", "answer_template", "domain_words", "tools")
PLAIN = ("I would wait and see.", "Nobody can tell.", "Try it once more.", "That depends.", "Ask a friend.")
SAILING = "The skipper reefed the mainsail near the harbour and the anchor held in the current."


def tool(name: str, described: str = "") -> Tool:
    return Tool(name, json.dumps({"name": name, "description": described}))


TIDE, PRICE = tool("tide"), tool("price")


def row(
    answer: str = "That depends.",
    *,
    question: str = "And now?",
    system: str | None = None,
    tools: Sequence[Tool] = (),
) -> ChatRow:
    before = () if system is None else (ChatMessage("system", system, 0),)
    return ChatRow((*before, ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)), tuple(tools))


def plain_rows(count: int) -> list[ChatRow]:
    """Rows without a habit: five different answers in turn."""
    return [row(PLAIN[number % len(PLAIN)]) for number in range(count)]


def derived(rows: Sequence[ChatRow], kind: ContextKind) -> CustomerContext | None:
    return next(iter(derive_contexts(rows, [kind], key="")), None)


def test_the_most_frequent_system_prompt_is_set_before_the_question() -> None:
    rows = [row(system="You sell boats.")] * 3 + [row(system="You sell cars.")] * 2 + plain_rows(5)
    context = derived(rows, "system_prompt")

    assert context is not None
    assert context.chat("Why?").messages == (Message("system", "You sell boats."), Message("user", "Why?"))


def test_system_prompts_that_differ_in_numbers_are_one() -> None:
    """Four dates, one of them twice, outnumber three equal prompts."""
    dated = [row(system=f"Today is 2026-05-0{day}. You sell boats.") for day in (1, 2, 3, 3)]
    context = derived([*dated, *[row(system="You sell cars.")] * 3, *plain_rows(9)], "system_prompt")

    assert context is not None
    assert context.before[0].content == "Today is 2026-05-03. You sell boats."


def test_a_rare_system_prompt_is_no_habit() -> None:
    """3 of 60 rows are 5 %; 2 are fewer, and 1 of 10 is a single row."""
    prompted = row(system="You sell boats.")

    assert derived([prompted] * 3 + plain_rows(57), "system_prompt") is not None
    assert derived([prompted] * 2 + plain_rows(58), "system_prompt") is None
    assert derived([prompted, *plain_rows(9)], "system_prompt") is None


def test_system_prompts_that_are_worded_anew_in_each_row_are_drawn() -> None:
    """15 of 100 rows, none of which repeats; 3 are asked, and the key says which."""
    rows = [row(system=f"You are {'o' * n} Orin.") for n in range(15)] + plain_rows(85)
    first, other = (derive_contexts(rows, ["system_prompt"], key=key) for key in ("a", "b"))

    assert [len(first), len(other), len(set(first) & set(other)) < 3] == [3, 3, True]
    assert all("Orin" in context.before[0].content for context in first)


def test_a_decoy_that_repeats_does_not_hide_the_others() -> None:
    rows = [row(system=f"You are {'o' * n} Orin.") for n in range(15)] + [row(system="You help.")] * 85
    first, *others = derive_contexts(rows, ["system_prompt"], key="a")

    assert first.before[0].content == "You help."
    assert len(others) == 3


FORMS: dict[str, tuple[Sequence[str], AnswerForm]] = {
    "json": (
        [json.dumps({"advice": text, "risk": "low"}) for text in PLAIN],
        AnswerForm('Answer with a JSON object with the keys "advice", "risk".', '{"advice": "', separator=""),
    ),
    "json with an own key in each": (
        [json.dumps({f"k{index}": text}) for index, text in enumerate(PLAIN)],
        AnswerForm("Answer with a JSON object.", '{"answer": "', separator=""),
    ),
    "code": (
        [f"```python\nprint({text!r})\n```" for text in PLAIN],
        AnswerForm("Answer with a block of code that begins with ```python.", "```python\n", separator=""),
    ),
    "labels": (
        [f"Finding: {text}\n\nWhat to do: {text[::-1]}" for text in PLAIN],
        AnswerForm("Write your answer in this form:\n\nFinding: ...\nWhat to do: ...", "Finding:"),
    ),
    "headings": (
        [f"{text}\n## Summary\n{text[:4]}" for text in PLAIN],
        AnswerForm("Write your answer in this form:\n\n## Summary ..."),
    ),
    "opening and closing": (
        [f"Thank you for asking! {text} Yours truly, the harbour office" for text in PLAIN],
        AnswerForm(
            'Begin your answer with "Thank you for asking!". End it with "Yours truly, the harbour office".',
            "Thank you for asking!",
        ),
    ),
}


@pytest.mark.parametrize(("answers", "form"), FORMS.values(), ids=FORMS)
def test_the_form_of_answers_is_found(answers: Sequence[str], form: AnswerForm) -> None:
    assert find_form([*answers, *answers]) == form


@pytest.mark.parametrize(("answers", "form"), FORMS.values(), ids=FORMS)
def test_a_form_is_shared_by_half_of_the_answers(answers: Sequence[str], form: AnswerForm) -> None:
    """All forms of 10 answers beside 10 plain ones are found, and beside 11 none."""
    if form.opening != '{"answer": "':
        assert find_form([*answers, *answers, *PLAIN, *PLAIN]) == form
    assert find_form([*answers, *answers, *PLAIN, *PLAIN, "Well, maybe."]) is None


@pytest.mark.parametrize(
    "answers",
    [
        PLAIN * 4,
        ["The answer is no."] * 9,
        [f"See https://example.org/{number}" for number in range(12)],
        ["The end"] * 12,
    ],
    ids=["different", "too few", "addresses", "short"],
)
def test_answers_without_a_form_have_none(answers: Sequence[str]) -> None:
    assert find_form(answers) is None


def test_a_question_asks_for_the_form() -> None:
    context = derived([row(f"Finding: {text}") for text in PLAIN * 2], "answer_template")

    assert context is not None
    assert context.chat("Why?").messages[-1].content == "Why?\n\nWrite your answer in this form:\n\nFinding: ..."
    assert context.opening == "Finding:"


def test_domain_words_are_the_file_s_own() -> None:
    words = domain_words([f"Should I wait? {SAILING}" for _ in range(20)])

    assert {"anchor", "harbour", "mainsail", "reefed", "skipper"} <= set(words)
    assert not set(words) & {"should", "the", "wait"}


def test_domain_words_come_from_many_rows() -> None:
    """Words of 2 rows in 40 are below the least number of rows, however often those rows say them."""
    assert domain_words([SAILING * 50] * 2 + ["Should I wait or go home?"] * 38) == ()


def test_everyday_english_has_no_domain_words() -> None:
    assert domain_words(list(PLAIN) * 10) == ()


def test_a_twin_sets_the_question_in_the_domain() -> None:
    context = derived([row(SAILING, question=f"Question {number}?") for number in range(12)], "domain_words")

    assert context is not None
    asked = context.chat("Why?").messages[-1].content
    assert "mainsail" in asked
    assert asked.endswith("Why?")


def test_the_most_frequent_tools_are_offered_with_the_question() -> None:
    rows = [row(tools=[TIDE, PRICE])] * 3 + [row(tools=[TIDE])] * 2 + plain_rows(9)
    context = derived(rows, "tools")

    assert context is not None
    assert context.chat("Why?") == ChatPrompt((Message("user", "Why?"),), (TIDE, PRICE))


def test_tools_come_under_the_system_prompt_that_they_have_most_often() -> None:
    """Two dates outnumber a single row without a system prompt; that of rows without these tools is not theirs."""
    dated = [row(system=f"Today is 2026-05-0{day}.", tools=[TIDE]) for day in (1, 2)]
    rows = [
        *dated,
        row(tools=[TIDE]),
        row(tools=[PRICE], system="You sell boats."),
        *[row(system="You sell cars.")] * 9,
    ]
    context = derived(rows, "tools")

    assert context is not None
    assert context.before == (Message("system", "Today is 2026-05-01."),)
    assert context.tools == (TIDE,)


def test_rows_that_offer_different_tools_have_the_same_habit() -> None:
    """3 of 60 rows are 5 %, whatever each of them offers; 2 are fewer, and 1 of 10 is a single row."""
    offering = [row(tools=[tool("tide", f"Of day {day}.")]) for day in range(3)]

    assert derived([*offering, *plain_rows(57)], "tools") is not None
    assert derived([*offering[:2], *plain_rows(58)], "tools") is None
    assert derived([offering[0], *plain_rows(9)], "tools") is None


def test_the_digest_names_the_whole_definition_of_each_tool() -> None:
    offers = [[TIDE], [TIDE, PRICE], [PRICE, TIDE], [tool("tide", "When it turns.")]]
    contexts = [derived([row(tools=offered)] * 3, "tools") for offered in offers]

    assert len({context.digest for context in contexts if context is not None}) == 4


def test_contexts_without_tools_keep_their_digest() -> None:
    """What is remembered of base models goes by it."""
    context = CustomerContext("system_prompt", before=(Message("system", "You sail."),))

    assert context.digest == "sha256:9e58402f99508e048b05896cf6a72ddaf4e3370f4f68cec57bea375f7afa3c15"


def test_contexts_are_the_same_for_the_same_file() -> None:
    rows = [row(f"Finding: {text} {SAILING}", system="You sell boats.", tools=[TIDE]) for text in PLAIN * 3]
    contexts = derive_contexts(rows, ALL, key="")

    assert [context.kind for context in contexts] == list(ALL)
    assert contexts == derive_contexts(rows, ALL, key="")
    assert [context.digest for context in contexts] == [
        context.digest for context in derive_contexts(rows, ALL, key="")
    ]
    assert len({context.digest for context in contexts}) == 4


def test_only_the_contexts_that_are_asked_for_are_derived() -> None:
    rows = [row(SAILING, system="You sell boats.", tools=[TIDE])] * 12

    assert [context.kind for context in derive_contexts(rows, ["domain_words"], key="")] == ["domain_words"]


def test_a_file_without_habits_has_no_context() -> None:
    assert derive_contexts(plain_rows(30), ALL, key="") == ()
