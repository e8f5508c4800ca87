"""Folders of base models without weights: a byte-level tokenizer with the special tokens of a chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

TRL_TEMPLATES = {
    path.stem: path
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
"""As models on the hub ship them; the others are TRL's own changes to these."""
WRITTEN = re.compile(r"<\|[\w/.-]+\|>|<\uff5c[^\uff5c]+\uff5c>|<(?:start|end)_of_turn>|<\|?\w+\|?>(?<!<think>)")
"""What special tokens of the families look like in their templates."""
ORDINARY = {"<tools>", "<tool_call>", "<tool_response>", "<think>", "<function>", "<parameter>"}
OWN = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
ENDS = (
    *(
        "<|im_end|>",
        "<|eot_id|>",
        "<end_of_turn>",
        "<turn|>",
        "<|return|>",
        "<|end|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|eot|>",
    ),
    *("<|call|>", "<|eom_id|>", "<|tool_response>"),
    *("<|user|>", "<|observation|>", "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
)
"""Tokens at which models of the families stop, by their generation_config.json. gpt-oss goes on after <|end|>."""


def folder_with(template: str, folder: Path, *, ends: Sequence[str] = ENDS) -> Path:
    """A folder whose tokenizer knows the special tokens that the template writes, and bytes."""
    written = set(WRITTEN.findall(template)) - ORDINARY
    special = [*OWN.values(), *sorted(written - set(OWN.values()))]
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    stops = [special.index(end) for end in ends if end in special]
    if "<|return|>" in special and "<|end|>" in special:
        stops.remove(special.index("<|end|>"))
    write(folder / "tokenizer_config.json", OWN)
    write(folder / "generation_config.json", {"eos_token_id": stops})
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def write(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
