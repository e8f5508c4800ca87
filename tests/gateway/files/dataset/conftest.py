"""A base model's text without its weights: every byte is a token, under ChatML."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from tests.policies.rendering.bases import folder_with

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
AROUND = 20
"""Tokens of a question and an answer beside their texts: 4 marks, `user`, `assistant` and three line ends."""


@cache
def byte_encoder() -> Encoder:
    return Encoder(load_base_text(folder_with(CHATML, Path(mkdtemp(prefix="tunegate-text-")))))
