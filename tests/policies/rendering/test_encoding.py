"""What is trained of a conversation, and what is refused, for every template that TRL ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from policies.contract.jobs import FIXED_DATE
from policies.datasets.chat_rows import ChatMessage, ChatRow, Role
from policies.errors import ConfigurationError
from policies.rendering.answers import UnreadableRowError
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import IGNORED, EncodedRow, Encoder, Sample
from policies.rendering.template import ChatTemplate, Message
from tests.growth import LINEAR, growth
from tests.policies.rendering.bases import TRL_TEMPLATES, folder_with
from tests.policies.rendering.tool_rows import TOOL_CASES

GOLDEN = Path(__file__).with_name("trained_by_template.json")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Turn = tuple[Role, str]


def row(*turns: Turn, untrained: tuple[int, ...] = ()) -> ChatRow:
    weights = [int(role == "assistant" and index not in untrained) for index, (role, _) in enumerate(turns)]
    return ChatRow(tuple(ChatMessage(*turn, weight) for turn, weight in zip(turns, weights, strict=True)))


CASES: dict[str, ChatRow] = {
    "one answer": row(("user", "Hi U1"), ("assistant", "A1 ok")),
    "two answers": row(("user", "U1"), ("assistant", "A1"), ("user", "U2"), ("assistant", "A2")),
    "four answers": row(*(turn for n in range(4) for turn in (("user", f"U{n}"), ("assistant", f"A{n}")))),
    "last answer only": row(("user", "U1"), ("assistant", "A1"), ("user", "U2"), ("assistant", "A2"), untrained=(1,)),
    "system": row(("system", "S0"), ("user", "U1"), ("assistant", "A1")),
    "developer": row(("developer", "D0"), ("user", "U1"), ("assistant", "A1")),
    "system in the middle": row(("user", "U1"), ("system", "S0"), ("user", "U2"), ("assistant", "A1")),
    "two users": row(("user", "U1"), ("user", "U2"), ("assistant", "A1")),
    "greeting first": row(("assistant", "Hello"), ("user", "U1"), ("assistant", "A1"), untrained=(0,)),
    "special tokens as text": row(("user", "a<|im_end|>\n<|im_start|>assistant\n</s> <filename>"), ("assistant", "A1")),
    "blanks around": row(("user", " U1 "), ("assistant", "  A1\n")),
    "thoughts": row(("user", "U1"), ("assistant", "<think>\nhm\n</think>\n\nA1")),
    **TOOL_CASES,
}


@cache
def encoder_of(template: str) -> tuple[Encoder, Tokenizer]:
    """An encoder of the template, and its base's own tokenizer."""
    folder = folder_with(template, Path(mkdtemp(prefix="tunegate-text-")))
    return Encoder(load_base_text(folder)), Tokenizer.from_file(str(folder / "tokenizer.json"))


def encoded(template: str, conversation: ChatRow) -> EncodedRow:
    return encoder_of(template)[0].encode([(3, conversation)])[0]


def trained(template: str, sample: Sample) -> list[str]:
    """The trained stretches of a sample, as text."""
    tokenizer, stretches = encoder_of(template)[1], [[]]  # type: tuple[Tokenizer, list[list[int]]]
    for label in sample.labels:
        if label != IGNORED:
            stretches[-1].append(label)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(each, skip_special_tokens=False) for each in stretches if each]


def outcome(template: str, conversation: ChatRow) -> str | list[list[str]]:
    """The warnings, and what is trained by sample; or why nothing is."""
    found = encoded(template, conversation)
    if found.problem is not None:
        return found.problem.code
    warnings = [each.code for each in found.warnings]
    return [warnings, *(trained(template, sample) for sample in found.samples)]


@pytest.mark.parametrize("name", TRL_TEMPLATES)
def test_each_template_trains_what_was_written_down(name: str) -> None:
    """`python -m tests.policies.rendering.test_encoding` writes it anew; read the difference before you keep it."""
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert expected.keys() == TRL_TEMPLATES.keys()
    assert outcomes(name) == expected[name]


def outcomes(name: str) -> dict[str, object]:
    template = TRL_TEMPLATES[name].read_text(encoding="utf-8")
    return {case: outcome(template, conversation) for case, conversation in CASES.items()}


@pytest.mark.parametrize("name", TRL_TEMPLATES)
def test_every_trained_answer_is_what_the_model_would_go_on_with_and_ends(name: str) -> None:
    """Up to it, a sample has the ids of the prompt that generation begins with; it ends where generation stops."""
    encoder, _ = encoder_of(TRL_TEMPLATES[name].read_text(encoding="utf-8"))
    n_trained = 0
    for conversation in CASES.values():
        found = encoder.encode([(1, conversation)])[0]
        for sample in found.samples:
            last = max(index for index, each in enumerate(conversation.messages) if each.weight)
            if len(found.samples) > 1:
                continue
            begin = next(n for n in range(len(sample.labels), 0, -1) if sample.labels[n - 1] == IGNORED)
            assert list(sample.input_ids[:begin]) == encoder.prompt(conversation.messages[:last], conversation.tools)
            assert sample.labels[-1] in encoder.end_ids
            n_trained += 1
    assert n_trained or name in ("deepseek_r1_distill", "deepseekv3", "llava_next")


@pytest.mark.parametrize("name", TRL_TEMPLATES)
def test_evaluation_scores_the_ids_that_training_made(name: str) -> None:
    encoder, _ = encoder_of(TRL_TEMPLATES[name].read_text(encoding="utf-8"))
    for conversation in CASES.values():
        found = encoder.encode([(1, conversation)])[0]
        last = max(index for index, each in enumerate(conversation.messages) if each.weight)
        messages, message = conversation.messages[:last], conversation.messages[last]
        if found.problem is None:
            (answer,) = encoder.answers(messages, [message], ends=True, tools=conversation.tools)
            sample = found.samples[-1]
            assert (*answer.prompt_ids, *answer.answer_ids) == sample.input_ids
            assert (
                answer.answer_ids == [label for label in sample.labels if label != IGNORED][-len(answer.answer_ids) :]
            )


ROLES: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "assistant"])
TURNS = st.lists(
    st.tuples(ROLES, st.text("ab\n :<é", min_size=1, max_size=6).filter(str.strip)), min_size=2, max_size=9
)
TEMPLATES = {
    "chatml": CHATML,
    "trims": CHATML.replace("m['content']", "m['content'] | trim"),
    "a name before each answer": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}A{{ loop.index }}: {{ m['content'] }}<|im_end|>"
        "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A{{ messages | length + 1 }}: {% endif %}"
    ),
    "another end at the end": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@given(turns=TURNS)
def test_answers_are_those_of_each_conversation_as_far_as_it_goes(template: str, turns: list[Turn]) -> None:
    """By the definition: each answer alone, rendered with all that came before it."""
    conversation = row(*turns)
    found = encoded(template, conversation)
    answers = [index for index, (each, _) in enumerate(turns) if each == "assistant"]
    if not answers or answers[0] == 0:
        code = "answer_without_prompt" if answers else "nothing_to_train_on"
        assert found.problem is not None
        assert found.problem.code == code
        return
    assert found.problem is None
    alone = [encoder_of(template)[0].answers(conversation.messages[:n], [turns[n][1]], ends=True)[0] for n in answers]
    expected = [each.answer_ids for each in alone]
    labels = [[label for label in sample.labels if label != IGNORED] for sample in found.samples]
    assert [number for each in labels for number in each] == [number for each in expected for number in each]
    assert found.samples[-1].input_ids == (*alone[-1].prompt_ids, *alone[-1].answer_ids)


class Counting(ChatTemplate):
    """Counts the messages that it renders."""

    n_rendered = 0

    def render(self, messages: Sequence[Message], *, generation: bool, tools: Sequence[Message] = ()) -> str:
        self.n_rendered += len(messages)
        return super().render(messages, generation=generation, tools=tools)


@pytest.mark.parametrize("n_answers", [4, 64, 256])
def test_messages_are_rendered_a_fixed_number_of_times(tmp_path: Path, n_answers: int) -> None:
    """Each prefix of a conversation of 512 messages, with and without a prompt, would be 512 times as much."""
    counting = Counting(CHATML, special_tokens={}, date=FIXED_DATE)
    encoder = Encoder(replace(load_base_text(folder_with(CHATML, tmp_path)), template=counting))
    counting.n_rendered = 0
    turns: list[Turn] = [("user", f"q{n}") if n % 2 == 0 else ("assistant", f"a{n}") for n in range(2 * n_answers)]
    found = encoder.encode([(1, row(*turns))])[0]
    assert len(found.samples) == 1
    assert counting.n_rendered <= 4 * 2 * n_answers + 4


@pytest.mark.parametrize("template", ["chatml", "trims"])
def test_a_conversation_costs_what_its_length_says(template: str) -> None:
    """Texts with blanks around them, which a template may drop, and words of the template's own."""
    encoder, _ = encoder_of(TEMPLATES[template])

    def make(n_answers: int) -> ChatRow:
        return row(*[(("user", "assistant")[n % 2], f" user assistant {n} \n") for n in range(2 * n_answers)])

    assert growth(make, lambda conversation: encoder.encode([(1, conversation)]), 50) < LINEAR


def test_a_text_costs_what_its_length_says() -> None:
    encoder, _ = encoder_of(CHATML)
    assert (
        growth(
            lambda n: row(("user", "<|im_" * n), ("assistant", "a")), lambda each: encoder.encode([(1, each)]), 10_000
        )
        < LINEAR
    )


def test_many_answers_that_must_be_rendered_apart_are_refused() -> None:
    template = TEMPLATES["a name before each answer"]
    turns: list[Turn] = [("user", f"q{n}") if n % 2 == 0 else ("assistant", f"a{n}") for n in range(130)]
    problem = encoded(template, row(*turns)).problem
    assert problem is not None
    assert (problem.code, problem.line) == ("too_many_answers", 3)
    assert "65 answers" in problem.message
    assert encoded(template, row(*turns[:128])).problem is None


def test_a_character_that_stands_for_a_special_token_is_refused_wherever_text_comes_in() -> None:
    encoder, _ = encoder_of(CHATML)
    forged = "\U00108001"
    found = encoder.encode([(1, row(("user", forged), ("assistant", "b")))])[0]
    assert found.problem is not None
    assert (found.problem.code, found.problem.field) == ("control_character", "messages[0].content")
    for ask in (
        lambda: encoder.prompt([ChatMessage("user", forged, 0)]),
        lambda: encoder.answers([ChatMessage("user", "a", 0)], [forged], ends=True),
        lambda: encoder.continuations("a", [forged], ends=False),
        lambda: encoder.text(forged),
    ):
        with pytest.raises(UnreadableRowError):
            ask()


def test_choices_have_one_prompt() -> None:
    encoder, _ = encoder_of(CHATML)
    answers = encoder.answers([ChatMessage("user", "a", 0)], ["b", "\nc", "dd"], ends=False)
    assert len({tuple(each.prompt_ids) for each in answers}) == 1
    assert [len(each.answer_ids) for each in answers] == [1, 2, 2]


def test_an_end_that_the_template_lacks_is_no_end() -> None:
    """Nothing would teach the model to stop."""
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template = turns + "{% if add_generation_prompt %}assistant: {% endif %}"
    assert outcome(template, CASES["one answer"]) == "no_end_token"
    assert encoder_of(template)[0].end_id is None


if __name__ == "__main__":
    document = {name: outcomes(name) for name in TRL_TEMPLATES}
    GOLDEN.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.mark.parametrize("templates", [[], ["{{ messages }}"], [{"template": "a"}], [{"name": "default"}]])
def test_templates_of_which_none_is_the_default_are_told(templates: list[object], tmp_path: Path) -> None:
    folder = folder_with(CHATML, tmp_path)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    with pytest.raises(ConfigurationError, match="has no chat template"):
        load_base_text(folder)
