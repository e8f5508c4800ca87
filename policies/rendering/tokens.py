"""The base model's own tokenizer without torch, reading special tokens only where the chat template wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from policies.rendering.special_tokens import SpecialTokens

BYTE = re.compile("<0x[0-9A-F]{2}>")
Json = Any  # Any: a tokenizer's own document


class TokenisedText(NamedTuple):
    """Ids of a text, and the characters from which to which each of them reaches."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class MarkedTokenizer:
    """Reads text in which special tokens are characters (`SpecialTokens.mark`), as the base's tokenizer reads tokens.

    It is the base's own tokenizer with another name for each special token, so nothing else is read otherwise.
    """

    def __init__(self, document: Mapping[str, Json]) -> None:
        """`document` is a `tokenizer.json`."""
        added = document.get("added_tokens") or []
        self.special = SpecialTokens(token["content"] for token in added if _is_special(token))
        self.id_of = {token["content"]: int(token["id"]) for token in added}
        without_words = {**document, "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
        self.opening_ids: list[int] = Tokenizer.from_str(json.dumps(without_words)).encode("").ids
        """What the tokenizer begins a text with that no chat template wrote, e.g. a token of the beginning."""
        self._tokenizer = Tokenizer.from_str(json.dumps(_renamed(document, self.special)))
        self._tokenizer.no_padding()
        self.has_token_per_byte = self._tokenizer.normalizer is None and isinstance(
            self._tokenizer.pre_tokenizer, ByteLevel
        )
        """No text has more tokens than bytes."""
        self._tokenizer.no_truncation()

    def read(self, texts: Sequence[str]) -> list[TokenisedText]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [TokenisedText(each.ids, each.offsets) for each in encodings]


def _is_special(token: Mapping[str, Json]) -> bool:
    """Some tokenizers list the bytes that they fall back to, which their model looks up by name."""
    return bool(token["special"]) and not BYTE.fullmatch(token["content"])


def _renamed(document: Mapping[str, Json], special: SpecialTokens) -> dict[str, Json]:
    names = {token: special.character_of(token) for token in special.tokens}
    added = [
        token | {"content": names[token["content"]], "normalized": False} if token["content"] in names else token
        for token in document.get("added_tokens") or []
    ]
    model = dict(document["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    elif vocabulary is not None:  # Unigram: [token, score]
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return {**document, "added_tokens": added, "model": model, "post_processor": None}
