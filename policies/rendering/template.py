"""The base model's own chat template: conversations in, the text that the model reads out.

Templates are Jinja as transformers runs it (`apply_chat_template`): a sandbox without access to Python, blocks trimmed,
and the helpers that templates expect. They come from the operator's base model; what tenants send is data to them. The
date that a template may write is fixed, so the same conversation is the same text tomorrow.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from policies.errors import ConfigurationError, DatasetError

Message = Mapping[str, Any]  # Any: what OpenAI's messages hold, as JSON
DATE_FORMAT = "%d %b %Y"
"""As Llama's templates write a date that is given to them."""
THINKING_SWITCHES: Mapping[str, bool | str] = {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}
"""Variables by which templates let a model think before it answers, and what keeps it from it."""


class TemplateRefusalError(DatasetError):
    """The template does not take the conversation; the message is the template's own."""


class _Generation(Extension):
    """`{% generation %}` marks what assistants said, for those who train by it; here it is only text."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template with what it is always given."""

    def __init__(self, source: str, *, special_tokens: Mapping[str, str], date: datetime.date) -> None:
        """`special_tokens` by the names that tokenizers give them, e.g. `bos_token`.

        Raises:
            ConfigurationError: the template is not one.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": date.strftime}
        try:
            self._template = environment.from_string(source)
            variables = meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            message = f"the base model's chat template can't be read: line {error.lineno}: {error.message}"
            raise ConfigurationError(message, "chat_template") from error
        self.source = source
        self.switches = {name: value for name, value in THINKING_SWITCHES.items() if name in variables}
        """What keeps the model from thinking, as far as the template asks."""
        self.writes_date = "date_string" in variables or "strftime_now" in source
        given = {"date_string": date.strftime(DATE_FORMAT)} if "date_string" in variables else {}
        self._given: dict[str, object] = {**special_tokens, **given, **self.switches, "documents": None}

    def render(self, messages: Sequence[Message], *, generation: bool, tools: Sequence[Message] = ()) -> str:
        """The text of a conversation; with `generation` it ends where the assistant's next answer begins.

        Raises:
            TemplateRefusalError: the template does not take these roles in this order, or something of this shape.
        """
        given = self._given | {"messages": messages, "tools": list(tools) or None, "add_generation_prompt": generation}
        try:
            return self._template.render(given)
        except TemplateError as error:
            raise TemplateRefusalError(str(error.message or type(error).__name__)) from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise TemplateRefusalError(f"{type(error).__name__}: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # templates call it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own writes HTML's characters otherwise."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
