"""Files and jobs as OpenAI's API shows them, read from what a customer saved of its lists.

An export is JSON or JSONL: a list object with its `data`, an array, one object, or an object a line. None of it is
trusted: what an object is used for is typed here, and whatever does not fit is told and left alone.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from policies.datasets.chat_rows import Json
from policies.datasets.reader import iter_values
from policies.datasets.strict_json import decode_line
from policies.errors import ConfigurationError

MAX_DOCUMENT_BYTES = 8 << 20
"""Of an export that is one JSON value; of JSONL each line has the limit of training files. With `MAX_OBJECTS` this
keeps the memory of an import below half a gigabyte."""
MAX_OBJECTS = 100_000
"""Of one import, those of other kinds and those that can't be read among them."""
MAX_PROBLEMS = 100
SUFFIXES = (".json", ".jsonl")

FileId = Annotated[str, StringConstraints(pattern=r"^file-[A-Za-z0-9_-]{1,64}$")]
JobId = Annotated[str, StringConstraints(pattern=r"^ftjob-[A-Za-z0-9_-]{1,64}$")]


class _Exported(BaseModel):
    """What is used of an object; fields beyond that are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ExportedFile(_Exported):
    """A file object."""

    id: FileId
    filename: str = Field("", max_length=1024)
    bytes: int | None = Field(None, ge=0)
    purpose: str = Field("fine-tune", max_length=64)


class ExportedMethod(_Exported):
    """`method` of a job; the settings lie below the key that `type` names."""

    model_config = ConfigDict(extra="allow")

    type: str = Field("supervised", max_length=64)


class ExportedJob(_Exported):
    """A job object."""

    id: JobId
    created_at: int = 0
    model: str = Field(min_length=1, max_length=256)
    status: str = Field("succeeded", max_length=64)
    training_file: FileId
    validation_file: FileId | None = None
    fine_tuned_model: str | None = Field(None, max_length=512)
    user_provided_suffix: str | None = Field(None, max_length=512)
    suffix: str | None = Field(None, max_length=512)
    hyperparameters: dict[str, JsonValue] | None = None
    method: ExportedMethod | None = None
    seed: int | None = None
    metadata: dict[str, JsonValue] | None = None
    integrations: list[dict[str, JsonValue]] | None = None


@dataclass
class Export:
    """All that was read; of an object that came twice, the later one."""

    files: dict[str, ExportedFile] = field(default_factory=dict)
    jobs: dict[str, ExportedJob] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    """Objects of other kinds, which are left out, by kind."""
    problems: list[str] = field(default_factory=list)
    """Objects that can't be read, with their place, and pages that say that there are more; the first ones."""
    n_problems: int = 0
    n_objects: int = 0

    def tell(self, problem: str) -> None:
        self.n_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


class _Value(NamedTuple):
    """A JSON value of a file, or why there is none."""

    place: str
    value: Json
    unreadable: str | None = None


def read_exports(paths: Sequence[Path]) -> Export:
    """Read files, and of folders the files in them that begin with an object of OpenAI's.

    Raises:
        ConfigurationError: a file of `paths` holds something else, or nothing in them is an export.
    """
    export = Export()
    found = 0
    for path in paths:
        for each in _files_of(path):
            if _begins_with_object(each):
                found += 1
                _read(each, export)
            elif each.suffix == ".json" and each.stat().st_size > MAX_DOCUMENT_BYTES:
                raise ConfigurationError(
                    f"{each}: larger than {MAX_DOCUMENT_BYTES} bytes; write an object a line, as JSONL"
                )
            elif each == path:
                raise ConfigurationError(f"{path}: no file or job objects of OpenAI's API, as JSON or JSONL")
    if not found:
        raise ConfigurationError(f"{paths[0]}: no .json or .jsonl file in it holds file or job objects of OpenAI's API")
    return export


def _files_of(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    yield from (each for each in sorted(path.iterdir()) if each.suffix in SUFFIXES and is_plain_file(each))


def is_plain_file(path: Path) -> bool:
    """Links are not followed: an export that came from elsewhere must not name files of this machine."""
    return path.is_file() and not path.is_symlink()


def _begins_with_object(path: Path) -> bool:
    first = next(_values(path), None)
    if first is None:
        return False
    value = first.value[0] if isinstance(first.value, list) and first.value else first.value
    return isinstance(value, dict) and isinstance(value.get("object"), str)


def _values(path: Path) -> Iterator[_Value]:
    """The file as one JSON value, or else line by line."""
    with path.open("rb") as stream:
        content = stream.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) <= MAX_DOCUMENT_BYTES:
            value = decode_line(content.removeprefix(codecs.BOM_UTF8), 1)
            if not isinstance(value, tuple):
                yield _Value(path.name, value)
                return
        del content
        stream.seek(0)
        for number, value in iter_values(stream):
            place = f"{path.name}: line {number}"
            if isinstance(value, tuple):
                yield _Value(place, None, f"{value[0].message} ({value[0].code})")
            else:
                yield _Value(place, value)


def _read(path: Path, export: Export) -> None:
    for place, value, unreadable in _values(path):
        if unreadable is not None:
            export.n_objects += 1
            export.tell(f"{place}: {unreadable}")
            continue
        for item_place, item in _objects(place, value, export):
            export.n_objects += 1
            if export.n_objects > MAX_OBJECTS:
                raise ConfigurationError(f"{path}: more than {MAX_OBJECTS} objects; import them in parts")
            _add(item, item_place, export)


def _objects(place: str, value: Json, export: Export) -> Iterable[tuple[str, Json]]:
    if isinstance(value, dict) and value.get("object") == "list" and isinstance(value.get("data"), list):
        if value.get("has_more") is True:
            export.tell(f"{place}: the page says that there are more; export the others too")
        value = value["data"]
    if isinstance(value, list):
        return ((f"{place}: object {number}", item) for number, item in enumerate(value, start=1))
    return ((place, value),)


def _add(item: Json, place: str, export: Export) -> None:
    kind = item.get("object") if isinstance(item, dict) else None
    try:
        if kind == "file":
            file = ExportedFile.model_validate(item)
            export.files[file.id] = file
        elif kind == "fine_tuning.job":
            job = ExportedJob.model_validate(item)
            export.jobs[job.id] = job
        elif isinstance(kind, str):
            export.others[kind[:64]] += 1
        else:
            export.tell(f"{place}: not an object of OpenAI's API: it has no `object`")
    except ValidationError as error:
        first = error.errors()[0]
        export.tell(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
