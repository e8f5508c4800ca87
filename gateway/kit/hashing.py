"""Hashes of secrets and their checksums."""

from __future__ import annotations

import hashlib
import zlib

from gateway.kit.ids import base62

CHECKSUM_LENGTH = 6
"""Base-62 digits that hold 32 bits: 62⁶ > 2³²."""


def sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def crc32_base62(text: str) -> str:
    """CRC-32 of `text` in six base-62 digits: lets a scanner tell a real key from a look-alike without a lookup."""
    return base62(zlib.crc32(text.encode()), CHECKSUM_LENGTH)
