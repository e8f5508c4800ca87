"""What lies beside an adapter says what the renderer does: its template, and where generation ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from policies.contract.adapter_files import COMPANION_FILES, GENERATION_FILE, TEMPLATE_FILE
from policies.rendering.adapter_companions import companion_files
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_base, tmp_path / "base")
    return tmp_path / "base"


def companions(base: Path) -> dict[str, bytes]:
    return companion_files(Encoder(load_base_text(base)))


def test_the_template_is_the_bases_byte_for_byte(base: Path) -> None:
    found = companions(base)
    assert set(found) == set(COMPANION_FILES)
    assert found[TEMPLATE_FILE] == (base / "chat_template.jinja").read_bytes()


def test_a_template_that_lies_in_the_tokenizers_settings_is_written_as_a_file(base: Path) -> None:
    source = (base / "chat_template.jinja").read_text(encoding="utf-8") + "{# Grüße #}"
    settings = json.loads((base / "tokenizer_config.json").read_bytes())
    named = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": source}]
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    (base / "chat_template.jinja").unlink()
    assert companions(base)[TEMPLATE_FILE] == source.encode()


def test_all_ends_of_generation_are_named_and_nothing_else(base: Path) -> None:
    """The model's own settings say 0 and 1, the tokenizer 2; sampling is not the adapter's business."""
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0], "temperature": 0.6}))
    assert json.loads(companions(base)[GENERATION_FILE]) == {"eos_token_id": [0, 1, 2]}
