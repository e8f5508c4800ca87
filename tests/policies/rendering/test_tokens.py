"""The marked tokenizer reads what the base's own reads, token for token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from policies.errors import ConfigurationError
from policies.rendering.base_text import load_base_text
from policies.rendering.tokens import MarkedTokenizer

SPECIAL = ("<s>", "</s>", "<|user|>", "<|end|>")
CORPUS = [
    "the cat sat on the mat and the dog sat too",
    "  two  spaces\n\nand lines",
    "caf\u00e9 na\u00efve \u4e2d\u6587",
] * 4
Json = Any  # Any: a tokenizer's document


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def sentence_piece(scheme: str) -> Tokenizer:
    """As Llama 2, Mistral and Gemma: blanks are part of words, and what is unknown is bytes."""
    bytes_of_all = [f"<0x{number:02X}>" for number in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *bytes_of_all], show_progress=False)
    )
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    )
    return tokenizer


KINDS = {
    "byte level": byte_level,
    "pieces, first": lambda: sentence_piece("first"),
    "pieces, always": lambda: sentence_piece("always"),
    "unigram": unigram,
}
READERS: dict[str, tuple[Tokenizer, MarkedTokenizer]] = {}


def readers(kind: str) -> tuple[Tokenizer, MarkedTokenizer]:
    """The base's own tokenizer and the marked one."""
    if kind not in READERS:
        own = KINDS[kind]()
        own.add_special_tokens(list(SPECIAL))
        own.add_tokens(["<think>"])
        READERS[kind] = own, MarkedTokenizer(json.loads(own.to_str()))
    return READERS[kind]


TEXTS = st.lists(
    st.sampled_from([*SPECIAL, "<think>", "the", " cat", "  ", "\n", "\n\n", "sat", "caf\u00e9", "\U0001f600", "<"]),
    max_size=10,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_templates_text_is_read_as_the_bases_tokenizer_reads_it(kind: str, text: str) -> None:
    own, marked = readers(kind)
    read = marked.read([marked.special.mark(text)])[0]
    expected = own.encode(text, add_special_tokens=False)
    assert read.ids == expected.ids
    assert len(read.offsets) == len(read.ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_a_tenants_text_has_no_special_token(kind: str, text: str) -> None:
    own, marked = readers(kind)
    special = {own.token_to_id(token) for token in SPECIAL}
    assert not special & set(marked.read([marked.special.mark(marked.special.hide(text))])[0].ids)


@pytest.mark.parametrize("kind", ["byte level", "pieces, first"])
def test_offsets_name_the_characters_of_each_token(kind: str) -> None:
    _, marked = readers(kind)
    text = marked.special.mark("<|user|>the caf\u00e9 sat<|end|>")
    read = marked.read([text])[0]
    assert "".join(dict.fromkeys(text[start:end] for start, end in read.offsets)).replace(" ", "") == text.replace(
        " ", ""
    )


def test_what_the_tokenizer_begins_every_text_with_is_known() -> None:
    own, marked = readers("byte level")
    assert marked.opening_ids == own.encode("").ids != []
    assert readers("unigram")[1].opening_ids == []


@pytest.mark.parametrize(
    ("content", "told"), [(None, "has no tokenizer.json"), ("{", "can't be read"), ("[]", "no JSON object")]
)
def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigurationError, match=told):
        load_base_text(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"model": {"type": "BPE"}}', '{"added_tokens": [{"content": "<a>"}]}'])
def test_a_document_that_is_no_tokenizer_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is not a tokenizer"):
        load_base_text(tmp_path)
