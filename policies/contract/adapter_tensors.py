"""What a file of adapter weights holds, by its header alone: exactly the pairs of a plain LoRA, and nothing besides.

PEFT puts on a model what the adapter's settings name, vLLM all that the file holds. Where the file holds the pairs that
the settings name and no other tensor, both read the same. The format is safetensors: the length of a JSON header in 8
bytes, the header, then the tensors without gaps (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import Field, StrictInt, TypeAdapter, ValidationError

from policies.contract.artifacts import Record
from policies.contract.jobs import LoraSettings
from policies.errors import IntegrityError

MAX_HEADER_BYTES = 4 << 20
"""Of a file with some 25,000 tensors."""
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
METADATA: tuple[dict[str, str], ...] = ({}, {"format": "pt"})
_PAIR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]{1,500})\.lora_(?P<factor>[AB])\.weight")


class _Tensor(Record):
    """As the header has it; `data_offsets` are its first byte and the one after its last, behind the header."""

    dtype: str
    shape: tuple[StrictInt, ...] = Field(max_length=2)
    data_offsets: tuple[StrictInt, StrictInt]


class _Factor(NamedTuple):
    """One of the two matrices of an adapted module."""

    module: str
    factor: str


_HEADER = TypeAdapter(dict[str, _Tensor])


def require_plain_lora(weights: IO[bytes], n_bytes: int, lora: LoraSettings) -> None:
    """Refuse weights that are not the pairs A (rank, in) and B (out, rank) of the recipe's target modules.

    Args:
        weights: The file, from its beginning; only the header is read.
        n_bytes: Length of the file.

    Raises:
        IntegrityError: naming the tensor.
    """
    header, n_behind = _header(weights, n_bytes)
    factors = {_factor(name, tensor, lora): name for name, tensor in header.items()}
    alone = {factor: name for factor, name in factors.items() if _partner(factor) not in factors}
    if alone:
        raise IntegrityError(f"adapter tensor {min(alone.values())} has no partner")
    modules = {factor.module for factor in factors}
    for target in lora.target_modules:
        if not any(_is_of(module, target) for module in modules):
            raise IntegrityError(f"the adapter has no tensors for target module {target}")
    _require_no_gaps(header, n_behind)


def require_plain_lora_file(path: Path, lora: LoraSettings) -> None:
    """The same of a file."""
    with path.open("rb") as weights:
        require_plain_lora(weights, path.stat().st_size, lora)


def _header(weights: IO[bytes], n_bytes: int) -> tuple[dict[str, _Tensor], int]:
    """The tensors by name, and how many bytes follow."""
    length = int.from_bytes(weights.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, n_bytes - 8):
        raise IntegrityError("the adapter's weights are no safetensors file: its header has no sensible length")
    try:
        entries = json.loads(weights.read(length).decode("utf-8"), object_pairs_hook=_without_duplicates)
        if not isinstance(entries, dict):
            raise ValueError("its header is no object")
        if entries.pop("__metadata__", {}) not in METADATA:
            raise IntegrityError("the adapter's weights carry metadata, which some readers follow and others don't")
        return _HEADER.validate_python(entries), n_bytes - 8 - length
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))
        raise IntegrityError(f"the adapter's weights are no safetensors file: entry {place!r:.200}") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"the adapter's weights are no safetensors file: {error!s:.200}") from error


def _without_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Of two entries of one name readers take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _factor(name: str, tensor: _Tensor, lora: LoraSettings) -> _Factor:
    found = _PAIR.fullmatch(name)
    if found is None or not any(_is_of(found["module"], target) for target in lora.target_modules):
        raise IntegrityError(f"adapter tensor {name!r:.200} is none of the recipe's target modules")
    factor = _Factor(found["module"], found["factor"])
    rank = tensor.shape[0 if factor.factor == "A" else 1] if len(tensor.shape) == 2 else None
    if rank != lora.rank or min(tensor.shape) < 1:
        raise IntegrityError(f"adapter tensor {name} has shape {tensor.shape}, which is not of rank {lora.rank}")
    if tensor.dtype not in ITEM_BYTES:
        raise IntegrityError(f"adapter tensor {name} has format {tensor.dtype!r:.20}; {', '.join(ITEM_BYTES)} are read")
    return factor


def _is_of(module: str, target: str) -> bool:
    """As PEFT matches names of target modules."""
    return module == target or module.endswith(f".{target}")


def _partner(factor: _Factor) -> _Factor:
    return factor._replace(factor="B" if factor.factor == "A" else "A")


def _require_no_gaps(header: Mapping[str, _Tensor], n_bytes: int) -> None:
    """Each byte behind the header belongs to one tensor."""
    end = 0
    for name, tensor in _by_place(header):
        begin, after = tensor.data_offsets
        if begin != end or after - begin != math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]:
            raise IntegrityError(f"adapter tensor {name} has other bytes than its shape says, or shares or leaves some")
        end = after
    if end != n_bytes:
        raise IntegrityError(f"the adapter's weights have {n_bytes - end} bytes that no tensor names")


def _by_place(header: Mapping[str, _Tensor]) -> Iterator[tuple[str, _Tensor]]:
    return iter(sorted(header.items(), key=lambda item: item[1].data_offsets))
