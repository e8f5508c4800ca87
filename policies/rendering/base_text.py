"""What a base model's folder says about text: tokenizer, chat template, special tokens, where generation stops."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.contract.jobs import FIXED_DATE
from policies.errors import ConfigurationError
from policies.rendering.template import ChatTemplate
from policies.rendering.tokens import MarkedTokenizer, load_document

Json = Any  # Any: the folder's documents
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class BaseText:
    """How a base model reads text; the same in every process that renders for it."""

    template: ChatTemplate
    tokenizer: MarkedTokenizer
    stops: frozenset[str]
    """Special tokens at which generation ends, by the characters that stand for them."""
    date: str | None
    """What the template is told that it is, where it asks."""


def load_base_text(folder: Path, *, date: datetime.date = FIXED_DATE) -> BaseText:
    """Read a model folder.

    Raises:
        ConfigurationError: it has no tokenizer or chat template that can be read.
    """
    settings = _document(folder / "tokenizer_config.json")
    tokenizer = _tokenizer(folder)
    tokens = {name: token for name in settings if name.endswith("_token") and (token := _content(settings[name]))}
    template = ChatTemplate(_template(folder, settings), special_tokens=tokens, date=date)
    names = {number: token for token, number in tokenizer.id_of.items()}
    ends = {tokens.get("eos_token")} | {names.get(number) for number in _end_ids(folder)}
    stops = {tokenizer.special.character_of(end) for end in ends if end in tokenizer.special.tokens and end}
    return BaseText(template, tokenizer, frozenset(stops), date.isoformat() if template.writes_date else None)


def _tokenizer(folder: Path) -> MarkedTokenizer:
    document = load_document(folder)
    try:
        return MarkedTokenizer(document)
    except Exception as error:  # `tokenizers` raises nothing more special
        message = f"{folder / 'tokenizer.json'} is not a tokenizer: {type(error).__name__}: {error}"
        raise ConfigurationError(message, "uri") from error


def _template(folder: Path, settings: Mapping[str, Json]) -> str:
    path = folder / TEMPLATE_FILE
    source = path.read_text(encoding="utf-8") if path.is_file() else settings.get("chat_template")
    if isinstance(source, list):  # several under names
        named = [each for each in source if isinstance(each, dict) and each.get("name") == "default"]
        source = named[-1].get("template") if named else None
    if not isinstance(source, str) or not source:
        raise ConfigurationError(
            f"{folder} has no chat template: put one into {TEMPLATE_FILE}, as the model's makers trained it", "uri"
        )
    return source


def _end_ids(folder: Path) -> Iterator[int]:
    for name in ("generation_config.json", "config.json"):
        ids = _document(folder / name).get("eos_token_id")
        yield from ids if isinstance(ids, list) else [] if ids is None else [ids]


def _document(path: Path) -> dict[str, Json]:
    if not path.is_file():
        return {}
    try:
        document: dict[str, Json] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} can't be read: {error}", "uri") from error
    return document


def _content(token: Json) -> str | None:
    """Of a special token as tokenizers write it down: its text, or an object with it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
