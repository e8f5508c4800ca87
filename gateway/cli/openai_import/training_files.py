"""The bytes of exported files, among what lies beside an export, and what a job would say of them.

No path is made of anything that an export says: a name is looked up among those that are there.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.cli.openai_import.exported import ExportedFile, is_plain_file
from gateway.errors import InvalidRequest
from gateway.files.dataset.report import DatasetLimits
from gateway.files.dataset.validate import validate_dataset
from policies.contract.artifacts import digest_file
from policies.errors import ConfigurationError

MAX_NAMES = 200_000
"""Of files in the folders that are looked through."""
MAX_ROWS = 1_000_000
"""Of a file; how many the gateway takes, its operator has said to it."""


class LocalFile(NamedTuple):
    """A training file on this machine that can be uploaded."""

    path: Path
    digest: str
    size_bytes: int
    rows: int
    kind: Literal["chat", "preference"]


def names_in(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Where each name is found in the folders and in those directly below them.

    Raises:
        ConfigurationError: there are too many files.
    """
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(each.resolve() for each in folders):
        for path in itertools.islice(_plain_files(folder), MAX_NAMES + 1):
            paths = found.setdefault(path.name, [])
            if path not in paths:
                paths.append(path)
        if len(found) > MAX_NAMES:
            raise ConfigurationError(f"{folder}: more than {MAX_NAMES} files; name a smaller folder with --files")
    return found


def _plain_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_plain_file(path):
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from (each for each in sorted(path.iterdir()) if is_plain_file(each))


def find(file: ExportedFile, names: Mapping[str, list[Path]], filenames: Counter[str]) -> Path:
    """The file by its id, or by its name where no other exported file has that.

    Args:
        file: as exported; its `filename` is empty where only a job names it.
        names: what lies beside the export.
        filenames: how many exported files have each name.

    Raises:
        InvalidRequest: there is none, or more than one.
    """
    own = [f"{file.id}.jsonl", file.id, f"{file.id}_{file.filename}", f"{file.id}-{file.filename}"]
    by_id = [path for name in own for path in names.get(name, [])]
    by_name = names.get(file.filename, []) if filenames[file.filename] == 1 else []
    paths = by_id or by_name
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise InvalidRequest(f"{len(paths)} files are called {paths[0].name}; keep one", code="file_not_found")
    if filenames[file.filename] > 1 and file.filename in names:
        message = f"{filenames[file.filename]} exported files are called {file.filename}; save this one as {own[0]}"
        raise InvalidRequest(message, code="file_not_found")
    message = f"its bytes are not here; save them as {own[0]} in the export's folder, or name theirs with --files"
    raise InvalidRequest(message, code="file_not_found")


def check(path: Path, file: ExportedFile, *, is_trained_on: bool) -> LocalFile:
    """Read the file as a job would, but for what takes a base model.

    Raises:
        InvalidRequest: it is another file than the exported one, or nothing that can be trained on.
    """
    size = path.stat().st_size
    if file.bytes is not None and file.bytes != size:
        message = f"{path.name} has {size} bytes and the exported file {file.bytes}: it is another one, or not whole"
        raise InvalidRequest(message, code="file_not_found")
    limits = DatasetLimits(max_rows=MAX_ROWS, max_reported=1, min_rows=10 if is_trained_on else 1)
    with path.open("rb") as stream:
        report = validate_dataset(stream, limits, None)
    if not report.valid or report.kind is None:
        others = f", and {report.n_errors - 1} more" if report.n_errors > 1 else ""
        raise InvalidRequest(f"{report.errors[0]}{others}", code="invalid_training_file")
    return LocalFile(path, digest_file(path), size, report.rows, report.kind)
