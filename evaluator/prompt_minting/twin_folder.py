"""Writes minted sets where only their owner can read them, with a manifest and what to put into the policy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from evaluator.prompt_minting.minting import VERSION, MintedSet
from evaluator.prompt_minting.secret_seed import seed_id
from policies.contract.artifacts import Digest, Record, digest_bytes
from policies.errors import ConfigurationError

MANIFEST, SNIPPET = "manifest.json", "twin.yaml"


class MintedFile(Record):
    """One file of the folder."""

    probe: str
    file: str
    content: Digest
    n_prompts: int
    n_possible: int
    """How many prompts the grammar could give."""
    grammar: Digest


class MintingManifest(Record):
    """What a folder of minted sets holds, and what it can be made from again."""

    version: int
    seed: str
    """Which seed, as `tunegate prompts mint` names it; the seed can't be had from it."""
    sets: tuple[MintedFile, ...]


def write_twins(folder: Path, sets: Sequence[MintedSet], seed: bytes, *, in_store: bool) -> MintingManifest:
    """Write the sets, the manifest and the snippet; what is there already must be the same.

    Args:
        in_store: whether the policy names artifacts; otherwise files on the evaluators.

    Raises:
        ConfigurationError: a file is there with other content.
    """
    manifest = MintingManifest(version=VERSION, seed=seed_id(seed), sets=tuple(map(_file_of, sets)))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in sets:
        _write(folder / f"{each.probe}.jsonl", each.content)
    _write(folder / MANIFEST, manifest.canonical() + b"\n")
    _write(folder / SNIPPET, _snippet(folder, manifest, in_store=in_store).encode())
    return manifest


def _file_of(minted: MintedSet) -> MintedFile:
    return MintedFile(
        probe=minted.probe,
        file=f"{minted.probe}.jsonl",
        content=digest_bytes(minted.content),
        n_prompts=len(minted.items),
        n_possible=minted.n_possible,
        grammar=minted.grammar,
    )


def _snippet(folder: Path, manifest: MintingManifest, *, in_store: bool) -> str:
    """The probes with their twins, as they stand in a policy's suite."""
    lines = ["# Into spec.suite.probes of the release policy, beside what each probe has there already."]
    for each in manifest.sets:
        lines += [f"- probe: {each.probe}", "  twin:"]
        if in_store:
            lines.append(f"    prompts: {each.content}")
        else:
            path = json.dumps(str((folder / each.file).resolve()), ensure_ascii=False)
            lines += ["    prompts:", f"      uri: {path}", f"      content: {each.content}"]
    return "\n".join(lines) + "\n"


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.read_bytes() != content:
            raise ConfigurationError(f"{path} is there already, and is another one; name a new folder", "out") from None
        return
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
