"""Chat templates render here as transformers renders them, but for the date."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from policies.errors import ConfigurationError
from policies.rendering.template import ChatTemplate, Message, TemplateRefusalError
from tests.policies.rendering.bases import OWN, TRL_TEMPLATES

DATE = datetime.date(2026, 1, 1)
ASKED, ANSWERED = {"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "A\u00e9 ok"}
CONVERSATIONS: dict[str, list[Message]] = {
    "single": [ASKED, ANSWERED],
    "several": [ASKED, ANSWERED, {"role": "user", "content": "And?"}, ANSWERED],
    "system": [{"role": "system", "content": "Be kind."}, ASKED, ANSWERED],
    "developer": [{"role": "developer", "content": "Be kind."}, ASKED, ANSWERED],
    "two users": [ASKED, ASKED, ANSWERED],
    "tool": [ASKED, {"role": "tool", "content": "7", "tool_call_id": "a"}, ANSWERED],
}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}


def template_of(source: str, date: datetime.date = DATE) -> ChatTemplate:
    return ChatTemplate(source, special_tokens=OWN, date=date)


def theirs(source: str, messages: Sequence[Message], *, generation: bool, **given: object) -> str | None:
    """What transformers renders; None where the template refuses."""
    try:
        arguments: dict[str, Any] = {**OWN, **given}  # Any: whatever the template reads
        conversation: list[Any] = list(messages)
        rendered = render_jinja_template(
            [conversation], chat_template=source, add_generation_prompt=generation, **arguments
        )
    except Exception:  # whatever a template raises
        return None
    return str(rendered[0][0])


def ours(
    template: ChatTemplate, messages: Sequence[Message], *, generation: bool, tools: Sequence[Message]
) -> str | None:
    try:
        return template.render(messages, generation=generation, tools=tools)
    except TemplateRefusalError:
        return None


def test_there_are_templates_to_try() -> None:
    assert len(TRL_TEMPLATES) >= 41


@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["no tools", "tools"])
@pytest.mark.parametrize("path", TRL_TEMPLATES.values(), ids=list(TRL_TEMPLATES))
def test_conversations_are_rendered_as_transformers_renders_them(path: Path, tools: tuple[Message, ...]) -> None:
    source = path.read_text(encoding="utf-8")
    today = datetime.datetime.now(tz=datetime.UTC).astimezone().date()
    template = template_of(source, today)
    given: dict[str, object] = dict(template.switches)
    if "date_string" in source:
        given["date_string"] = today.strftime("%d %b %Y")
    n_rendered = 0
    for messages in CONVERSATIONS.values():
        for generation in (False, True):
            expected = theirs(source, messages, generation=generation, tools=list(tools) or None, **given)
            assert ours(template, messages, generation=generation, tools=tools) == expected
            n_rendered += expected is not None
    assert n_rendered or path.stem == "llava_next", "which takes no plain text"


@pytest.mark.parametrize("path", TRL_TEMPLATES.values(), ids=list(TRL_TEMPLATES))
def test_the_date_is_the_one_that_was_given(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    dates = (DATE, datetime.date(2027, 12, 31))
    texts = [ours(template_of(source, date), CONVERSATIONS["single"], generation=True, tools=()) for date in dates]
    assert template_of(source).writes_date or texts[0] == texts[1]
    if path.stem in ("gptoss", "llama3_2", "llama3_1", "muse_glimmer"):
        assert texts[0] != texts[1]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "nemotron_3_nano", "gemma4"])
def test_a_model_that_thinks_is_kept_from_it(name: str) -> None:
    """With its thoughts switched off a template closes them before the answer, or opens none."""
    template = template_of(TRL_TEMPLATES[name].read_text(encoding="utf-8"))
    assert template.switches["enable_thinking"] is False
    prompt = template.render([ASKED], generation=True)
    assert not prompt.rstrip().endswith("<think>")


def test_what_the_template_raises_is_told() -> None:
    template = template_of("{{ raise_exception('Only users here.') }}")
    with pytest.raises(TemplateRefusalError, match="Only users here"):
        template.render([ASKED], generation=False)


@pytest.mark.parametrize("source", ["{{ messages[9].content }}", "{{ messages[0]['content'] + 1 }}", "{{ 1 / 0 }}"])
def test_a_template_that_breaks_refuses(source: str) -> None:
    with pytest.raises(TemplateRefusalError):
        template_of(source).render([ASKED], generation=False)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_reaches_nothing_of_python(source: str) -> None:
    with pytest.raises(TemplateRefusalError, match=r"unsafe|undefined|not safely callable|no attribute"):
        template_of(source).render([ASKED], generation=False)


def test_a_template_that_is_none_is_told_with_its_line() -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        template_of("a\n{% for %}")


def test_generation_marks_are_only_text() -> None:
    template = template_of("{% generation %}{{ messages[0].content }}{% endgeneration %}")
    assert template.render([ASKED], generation=False) == "Hi <b>"
