"""Merkle tree hash over the lines of a file, so that one line can be shown to belong to it without showing the others.

RFC 6962 §2.1, with d_i a line without its line feed and k the largest power of two below n:

    MTH()            = SHA-256("")
    MTH(d_0)         = SHA-256(0x00 ‖ d_0)
    MTH(d_0 … d_n-1) = SHA-256(0x01 ‖ MTH(d_0 … d_k-1) ‖ MTH(d_k … d_n-1))

The prefixes keep a node from passing for a line. A proof shows that the line is in the tree; which line it is, and of
how many, is the word of whoever made the proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.errors import ConfigurationError, IntegrityError

_ALGORITHM = "sha256:"


class InclusionProof(Record):
    """The hashes beside the way from a line to the root, from the line upwards."""

    index: int = Field(ge=0)
    """Of the line, from 0."""
    n_lines: int = Field(ge=1)
    path: tuple[Digest, ...]


def jsonl_lines(content: bytes) -> list[bytes]:
    """The lines of a JSONL file, without their line feeds."""
    *lines, rest = content.split(b"\n")
    if rest:
        raise IntegrityError("the last line does not end in a line feed, so the file was cut off")
    return lines


def merkle_root(lines: Sequence[bytes]) -> Digest:
    """The hash that stands for all lines in their order."""
    return _digest(_tree([_leaf(line) for line in lines]))


def inclusion_proof(lines: Sequence[bytes], index: int) -> InclusionProof:
    """What shows, together with line `index`, that the line belongs to the root of `lines`."""
    if not 0 <= index < len(lines):
        raise ConfigurationError(f"there is no line {index}; the lines are 0 to {len(lines) - 1}", "index")
    path = _path([_leaf(line) for line in lines], index)
    return InclusionProof(index=index, n_lines=len(lines), path=tuple(map(_digest, path)))


def verify_inclusion(line: bytes, proof: InclusionProof, root: Digest) -> bool:
    """Whether `line` belongs to `root` (RFC 9162 §2.1.3.2)."""
    position, last = proof.index, proof.n_lines - 1
    if position > last:
        return False
    found = _leaf(line)
    for beside in map(_bytes, proof.path):
        if last == 0:
            return False
        if position % 2 or position == last:
            found = _node(beside, found)
            while position and position % 2 == 0:  # a subtree without a right neighbour rises unchanged
                position, last = position // 2, last // 2
        else:
            found = _node(found, beside)
        position, last = position // 2, last // 2
    return last == 0 and _digest(found) == root


def _leaf(line: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + line).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _tree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = _split(len(leaves))
    return _node(_tree(leaves[:split]), _tree(leaves[split:]))


def _path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*_path(leaves[:split], index), _tree(leaves[split:])]
    return [*_path(leaves[split:], index - split), _tree(leaves[:split])]


def _split(n: int) -> int:
    """The largest power of two below `n`."""
    return 1 << (n - 1).bit_length() - 1


def _digest(raw: bytes) -> Digest:
    return _ALGORITHM + raw.hex()


def _bytes(digest: Digest) -> bytes:
    return bytes.fromhex(digest.removeprefix(_ALGORITHM))
