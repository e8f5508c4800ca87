"""What a base model's folder says about text: tokenizer, chat template, special tokens, where generation stops."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.contract.base_models import BaseTextFiles, TextFile
from policies.contract.jobs import FIXED_DATE
from policies.errors import ConfigurationError
from policies.rendering.template import ChatTemplate
from policies.rendering.tokens import MarkedTokenizer

Json = Any  # Any: the folder's documents
TEMPLATE_FILE: TextFile = "chat_template.jinja"
END_FILES: tuple[TextFile, ...] = ("generation_config.json", "config.json")
"""Both may say where generation ends."""


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
    return base_text_of(BaseTextFiles.of(folder), str(folder), date=date)


def base_text_of(files: BaseTextFiles, where: str, *, date: datetime.date = FIXED_DATE) -> BaseText:
    """Read the files of a model folder, which errors call `where`.

    Raises:
        ConfigurationError: they have no tokenizer or chat template that can be read.
    """
    settings = _document(files, "tokenizer_config.json", where)
    tokenizer = _tokenizer(files, where)
    tokens = {name: token for name in settings if name.endswith("_token") and (token := _content(settings[name]))}
    template = ChatTemplate(_template(files, settings, where), special_tokens=tokens, date=date)
    names = {number: token for token, number in tokenizer.id_of.items()}
    ends = {tokens.get("eos_token")} | {names.get(number) for number in _end_ids(files, where)}
    stops = {tokenizer.special.character_of(end) for end in ends if end in tokenizer.special.tokens and end}
    return BaseText(template, tokenizer, frozenset(stops), date.isoformat() if template.writes_date else None)


def _tokenizer(files: BaseTextFiles, where: str) -> MarkedTokenizer:
    if "tokenizer.json" not in files.files:
        raise ConfigurationError(
            f"{where} has no tokenizer.json: save the model's tokenizer once with transformers' save_pretrained", "uri"
        )
    document = _document(files, "tokenizer.json", where)
    try:
        return MarkedTokenizer(document)
    except Exception as error:  # `tokenizers` raises nothing more special
        message = f"{where}/tokenizer.json is not a tokenizer: {type(error).__name__}: {error}"
        raise ConfigurationError(message, "uri") from error


def _template(files: BaseTextFiles, settings: Mapping[str, Json], where: str) -> str:
    source = files.files.get(TEMPLATE_FILE, settings.get("chat_template"))
    if isinstance(source, list):  # several under names
        named = [each for each in source if isinstance(each, dict) and each.get("name") == "default"]
        source = named[-1].get("template") if named else None
    if not isinstance(source, str) or not source:
        raise ConfigurationError(
            f"{where} has no chat template: put one into {TEMPLATE_FILE}, as the model's makers trained it", "uri"
        )
    return source


def _end_ids(files: BaseTextFiles, where: str) -> Iterator[int]:
    for name in END_FILES:
        ids = _document(files, name, where).get("eos_token_id")
        yield from ids if isinstance(ids, list) else [] if ids is None else [ids]


def _document(files: BaseTextFiles, name: TextFile, where: str) -> dict[str, Json]:
    try:
        document = json.loads(files.files.get(name, "{}"))
    except ValueError as error:
        raise ConfigurationError(f"{where}/{name} can't be read: {error}", "uri") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{where}/{name} can't be read: it is no JSON object", "uri")
    return document


def _content(token: Json) -> str | None:
    """Of a special token as tokenizers write it down: its text, or an object with it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
