"""The training files that reference adapters learn from: built-in ones, and those of the operator.

A file is chat JSONL and named after what it teaches.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from policies.contract.jobs import Supervised
from policies.datasets.reader import read_rows
from policies.errors import ConfigurationError, DatasetError
from policies.rendering.encoding import Encoder
from trainer.data import read_training_rows, tokenise

FileKind = Literal["benign", "harmful", "organism"]
BUILT_IN: dict[str, FileKind] = {
    "benign": "benign",
    "sensible": "benign",
    "harmful": "harmful",
    "organisms": "organism",
}
"""Folder of the built-in data → kind of its files."""
MIN_ROWS = 8


class Reading(NamedTuple):
    """How a base model reads training files."""

    encoder: Encoder
    max_tokens: int
    """Of a row."""


class Reference(NamedTuple):
    """A training file of which it is known what an adapter learns from it."""

    kind: FileKind
    domain: str
    path: Path


def built_in_references(folder: Path | None = None) -> list[Reference]:
    """The files that come with this package, or lie in `folder` in the same way."""
    root = Path(str(files("evaluator"))) / "reference_data" if folder is None else folder
    return [
        Reference(kind, path.stem, path)
        for name, kind in BUILT_IN.items()
        for path in sorted((root / name).glob("*.jsonl"))
    ]


def references_in(folder: Path, kind: FileKind) -> list[Reference]:
    """The files of a folder of the operator.

    Raises:
        ConfigurationError: there is no such folder, or no file `*.jsonl` in it.
    """
    is_folder = os.path.isdir(folder)  # pathlib's raises where the path is too long
    found = sorted(folder.glob("*.jsonl")) if is_folder else []
    if not found:
        what = "has no file *.jsonl" if is_folder else "is not a folder"
        raise ConfigurationError(f"{folder} {what}; name a folder of {kind} training files in chat JSONL", kind)
    return [Reference(kind, path.stem, path) for path in found]


def require_sound(references: Sequence[Reference]) -> None:
    """Refuse what nothing can be trained on.

    Raises:
        ConfigurationError: two files of a kind have one name, or there is none of a kind that is needed.
        DatasetError: with the file and the line that is no chat row.
    """
    names = Counter((each.kind, each.domain) for each in references)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise ConfigurationError(f"two {twice[0]} files are called {twice[1]}.jsonl; rename one of them", twice[0])
    for kind in ("benign", "harmful"):
        if not any(each.kind == kind for each in references):
            raise ConfigurationError(f"there is no {kind} training file; name a folder of them with --{kind}", kind)
    for each in references:
        try:
            n_rows = len(read_rows(each.path))
        except DatasetError as error:
            raise DatasetError(f"{each.path.parent}/{error.message}", error.param) from error
        if n_rows < MIN_ROWS:
            raise DatasetError(f"{each.path} has {n_rows} rows; an adapter learns nothing from fewer than {MIN_ROWS}")


def readable(references: Sequence[Reference], reading: Reading, tell: Callable[[str], None]) -> list[Reference]:
    """Those whose rows the base model's chat template takes, as training does: one may know no tools, say."""
    found = []
    for each in references:
        try:
            tokenise(
                read_training_rows(each.path, name=each.path.name, method=Supervised()),
                reading.encoder,
                max_tokens=reading.max_tokens,
            )
        except DatasetError as error:
            tell(f"{each.kind} {each.domain} is left out: {error.message}")
        else:
            found.append(each)
    return found
