"""Bytes of adapters for tests that load no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from policies.contract.jobs import LoraSettings

Header = dict[str, object]


def weights_of(lora: LoraSettings, seed: bytes) -> bytes:
    """A safetensors file with a pair for each target module, of one layer of width 1; `seed` gives the values."""
    return file_of(header_of(lora), seed)


def header_of(lora: LoraSettings) -> Header:
    header: Header = {}
    end = 0
    for module in lora.target_modules:
        for factor, shape in (("A", [lora.rank, 1]), ("B", [1, lora.rank])):
            name = f"base_model.model.model.layers.0.{module}.lora_{factor}.weight"
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * lora.rank]}
            end += 2 * lora.rank
    return header


def file_of(header: Mapping[str, object], seed: bytes = b"", *, n_bytes: int | None = None) -> bytes:
    """The file with that header, and as many bytes behind it as the header's last tensor says or `n_bytes` are."""
    text = json.dumps(header).encode()
    ends = [
        entry["data_offsets"][1] for entry in header.values() if isinstance(entry, dict) and "data_offsets" in entry
    ]
    n_behind = max(ends) if n_bytes is None else n_bytes
    return len(text).to_bytes(8, "little") + text + hashlib.shake_256(seed).digest(n_behind)
