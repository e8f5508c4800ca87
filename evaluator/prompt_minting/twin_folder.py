"""Writes minted sets where only their owner can read them, with a manifest and what to put into the policy."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
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
    """Write the sets, the manifest and the snippet, whole or not at all; in a folder with files they must be the same.

    Args:
        in_store: whether the policy names artifacts; otherwise files on the evaluators.

    Raises:
        ConfigurationError: the folder has other files, or can't be written.
    """
    manifest = MintingManifest(version=VERSION, seed=seed_id(seed), sets=tuple(map(_file_of, sets)))
    contents = {f"{each.probe}.jsonl": each.content for each in sets}
    contents[MANIFEST] = manifest.canonical() + b"\n"
    contents[SNIPPET] = _snippet(folder, manifest, in_store=in_store).encode()
    try:
        if folder.is_dir() and any(folder.iterdir()):
            _require_same(folder, contents)
        else:
            _write_whole(folder, contents)
    except OSError as error:
        message = f"nothing can be written to {folder}: {error.strerror}; name another place"
        raise ConfigurationError(message, "out") from error
    return manifest


def _require_same(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        if not path.is_file():
            raise ConfigurationError(f"{folder} has other files, and no {name}; name a new folder", "out")
        if path.read_bytes() != content:
            raise ConfigurationError(f"{path} is there already, and is another one; name a new folder", "out")


def _write_whole(folder: Path, contents: Mapping[str, bytes]) -> None:
    """All files, or no folder: they are written beside it, and then take its place."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, content in contents.items():
            with os.fdopen(os.open(unfinished / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(content)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
