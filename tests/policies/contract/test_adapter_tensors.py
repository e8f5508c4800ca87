"""An adapter's file holds exactly the pairs of its recipe, and every reader finds the same ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from policies.contract.adapter_tensors import MAX_HEADER_BYTES, require_plain_lora, require_plain_lora_file
from policies.contract.jobs import LoraSettings
from policies.errors import IntegrityError
from tests.adapter_bytes import Header, file_of, header_of, weights_of

LORA = LoraSettings(rank=4, target_modules=("q_proj", "self_attn.v_proj"))
Q_A = "base_model.model.model.layers.0.q_proj.lora_A.weight"
Q_B = "base_model.model.model.layers.0.q_proj.lora_B.weight"


def check(content: bytes) -> None:
    require_plain_lora(io.BytesIO(content), len(content), LORA)


def test_the_pairs_of_the_recipe_are_taken_and_others_read_them_too() -> None:
    content = weights_of(LORA, b"any").replace(b"BF16", b"F16 ").replace(b'"F16 "', b'"F16" ')
    check(content)
    assert load(content).keys() == header_of(LORA).keys()


def test_what_trainers_write_as_metadata_is_taken() -> None:
    check(file_of(header_of(LORA) | {"__metadata__": {"format": "pt"}}))


def renamed(name: str) -> Callable[[Header], Header]:
    return lambda header: {name if key == Q_A else key: value for key, value in header.items()}


def with_entry(**changes: object) -> Callable[[Header], Header]:
    def change(header: Header) -> Header:
        entry = header[Q_A]
        assert isinstance(entry, dict)
        return header | {Q_A: entry | changes}

    return change


def without(*names: str) -> Callable[[Header], Header]:
    return lambda header: {key: value for key, value in header.items() if key not in names}


WRONG: dict[str, tuple[Callable[[Header], Header], str]] = {
    "a module that the recipe does not name": (renamed(Q_A.replace("q_proj", "k_proj")), "none of the recipe's"),
    "a module whose name only ends alike": (renamed(Q_A.replace("q_proj", "xq_proj")), "none of the recipe's"),
    "embeddings": (renamed("base_model.model.model.embed_tokens.lora_embedding_A"), "none of the recipe's"),
    "magnitudes of DoRA": (renamed(Q_A.replace("lora_A.weight", "lora_magnitude_vector")), "none of the recipe's"),
    "a bias": (renamed(Q_A.replace("weight", "bias")), "none of the recipe's"),
    "a whole module": (renamed("base_model.model.lm_head.weight"), "none of the recipe's"),
    "a second adapter": (renamed(Q_A.replace("lora_A.weight", "lora_A.other.weight")), "none of the recipe's"),
    "half a pair": (renamed(Q_A.replace("layers.0", "layers.1")), "has no partner"),
    "no tensors for a target": (without(Q_A, Q_B), "no tensors for target module q_proj"),
    "no tensors": (lambda header: {}, "no tensors for target module"),
    "another rank": (with_entry(shape=[2, 2]), "not of rank 4"),
    "a vector": (with_entry(shape=[4]), "not of rank 4"),
    "an empty tensor": (with_entry(shape=[4, 0]), "not of rank 4"),
    "a cube": (with_entry(shape=[4, 1, 1]), "no safetensors file"),
    "packed numbers": (with_entry(dtype="I8"), "has format 'I8'"),
    "bytes of another": (with_entry(data_offsets=[8, 16]), "other bytes than its shape says"),
    "a gap": (with_entry(data_offsets=[0, 7]), "other bytes than its shape says"),
    "an unknown field": (with_entry(scale=2), "no safetensors file"),
    "a number that is none": (with_entry(data_offsets=[0, 8.0]), "no safetensors file"),
    "a boolean for a number": (with_entry(data_offsets=[False, 8]), "no safetensors file"),
    "metadata of its own": (lambda header: header | {"__metadata__": {"lora_alpha": "64"}}, "carry metadata"),
    "metadata without entries": (lambda header: header | {"__metadata__": None}, "carry metadata"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_set_of_tensors_is_refused(case: str) -> None:
    change, message = WRONG[case]
    n_bytes = len(weights_of(LORA, b"")) - len(file_of(header_of(LORA), n_bytes=0))
    with pytest.raises(IntegrityError, match=message):
        check(file_of(change(header_of(LORA)), n_bytes=n_bytes))


def test_bytes_that_no_tensor_names_are_refused() -> None:
    with pytest.raises(IntegrityError, match="3 bytes that no tensor names"):
        check(weights_of(LORA, b"") + b"end")


def test_a_name_that_is_there_twice_is_refused() -> None:
    """One reader takes the first, another the last."""
    text = json.dumps(header_of(LORA))
    twice = (text[:-1] + ", " + text[1:]).encode()
    with pytest.raises(IntegrityError, match="a name twice"):
        check(len(twice).to_bytes(8, "little") + twice + bytes(32))


@pytest.mark.parametrize("header", [b"[]", b"[{}]", b"null", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 100_000])
def test_a_header_that_is_no_object_in_utf_8_is_refused(header: bytes) -> None:
    with pytest.raises(IntegrityError, match="no safetensors file"):
        check(len(header).to_bytes(8, "little") + header)


def test_what_is_wrong_with_many_tensors_is_told_in_a_sentence() -> None:
    """Whoever trained the adapter is told of it."""
    text = json.dumps({f"{number}" * 100: {"dtype": 1} for number in range(1000)}).encode()
    with pytest.raises(IntegrityError) as error:
        check(len(text).to_bytes(8, "little") + text)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1, 2**63])
def test_a_header_of_no_sensible_length_is_refused_unread(length: int) -> None:
    content = io.BytesIO(length.to_bytes(8, "little") + bytes(64))
    with pytest.raises(IntegrityError, match="no sensible length"):
        require_plain_lora(content, MAX_HEADER_BYTES << 2, LORA)
    assert content.tell() == 8


@given(st.binary(max_size=64), st.integers(min_value=0, max_value=80))
def test_any_bytes_are_taken_or_refused(noise: bytes, place: int) -> None:
    content = weights_of(LORA, b"")
    with suppress(IntegrityError):
        check(content[:place] + noise + content[place + len(noise) :])


def test_the_shipped_canaries_are_plain_lora() -> None:
    adapters = sorted(Path("evaluator/self_test/canary_adapters").glob("*/*/adapter_model.safetensors"))
    assert len(adapters) >= 2
    for path in adapters:
        require_plain_lora_file(path, LoraSettings(rank=4, target_modules=("q_proj", "v_proj")))
