"""Remembers what the base model did on a probe, so that each adapter costs one run and not two.

An entry is named by everything that its samples depend on and carries the digest of its content. What can't be read
back exactly is measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from evaluator.models.base_models import locked
from evaluator.samples import Sample
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record


class BaseKey(Record):
    """All that the base's samples depend on."""

    base_model: Digest
    probe: str
    probe_version: str
    settings: Digest
    prompts: Digest
    part: Digest
    """Of the ids that were asked; a sequential run asks a prompt set in parts."""
    instruments: tuple[str, ...]
    seed: int
    dtype: str
    engine: str
    versions: dict[str, str]


class _Samples(Record):
    key: BaseKey
    samples: tuple[Sample, ...]


class _Entry(Record):
    content: _Samples
    content_digest: Digest


class BaseCache:
    """Base samples as JSON files in `folder`, safe to share between processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claimed(self, key: BaseKey) -> AbstractContextManager[None]:
        """While it is entered, no other process is: what two evaluations want at once is measured once."""
        return locked(self._path(key).with_suffix(".lock"))

    def read(self, key: BaseKey) -> tuple[Sample, ...] | None:
        """The samples under `key`, or None where there are none that match their digest."""
        try:
            entry = _Entry.model_validate_json(self._path(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        intact = entry.content.digest == entry.content_digest and entry.content.key == key
        return entry.content.samples if intact else None

    def write(self, key: BaseKey, samples: Sequence[Sample]) -> None:
        content = _Samples(key=key, samples=tuple(samples))
        write_atomically(self._path(key), _Entry(content=content, content_digest=content.digest).canonical())

    def _path(self, key: BaseKey) -> Path:
        return self._folder / f"{key.digest.removeprefix('sha256:')}.json"
