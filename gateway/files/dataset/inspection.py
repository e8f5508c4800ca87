"""What is asked of a reader of training files, and what it answers: records, because it is another process.

The files may be of a tenant who means harm, so they are read where nothing else is at stake (`sandbox.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import IO, Self

from pydantic import Field, model_validator

from gateway.files.dataset.report import DatasetLimits, DatasetReading, DatasetReport
from gateway.files.dataset.validate import Watcher, read_dataset
from policies.contract.artifacts import Record
from policies.contract.base_models import BaseTextFiles
from policies.contract.jobs import FIXED_DATE
from policies.contract.screening import SampledRow, ScreeningFacts, ScreeningTask
from policies.datasets.fingerprint import DatasetFingerprint, FingerprintSketch
from policies.rendering.base_text import base_text_of
from policies.rendering.encoding import Encoder
from policies.screening.file_screening import FileScreening

MAX_LISTED_ROWS = 10


class InspectionTask(Record):
    """One file, or a training file and a validation file that may share no row with it."""

    limits: tuple[DatasetLimits, ...] = Field(min_length=1, max_length=2)
    """Of each file."""
    base_model: str | None = None
    """What the base model is called whose tokens are counted; its `BaseTextFiles` come before the files."""
    date: datetime.date = FIXED_DATE
    """Which day it is to that model's chat template."""
    screening: ScreeningTask | None = None
    """What the first file is searched for, if it is."""
    fingerprint_key: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    """In hexadecimal; with a key, the first file is fingerprinted."""


class SharedRows(Record):
    """Rows of the validation file that the training file has too, however each is written down."""

    count: int = Field(ge=0)
    first_lines: tuple[int, ...] = Field(max_length=MAX_LISTED_ROWS)
    """Of the validation file."""


class InspectionAnswer(Record):
    """What was found; files after one that is not valid were not read."""

    reports: tuple[DatasetReport, ...] = Field(min_length=1, max_length=2)
    shared: SharedRows = SharedRows(count=0, first_lines=())
    same_questions: SharedRows = SharedRows(count=0, first_lines=())
    """Rows of the validation file that ask, but for blanks and case, what the training file asks."""
    fingerprint: DatasetFingerprint | None = None
    screening: ScreeningFacts | None = None
    sample: tuple[SampledRow, ...] = ()
    """Rows of the first file for a guard model."""

    @model_validator(mode="after")
    def _only_the_last_is_refused(self) -> Self:
        if not all(report.valid for report in self.reports[:-1]):
            raise ValueError("a file was read after one that is not valid")
        return self


def inspect(task: InspectionTask, streams: Sequence[IO[bytes]]) -> InspectionAnswer:
    """Read the files one after the other, each once; before them what the base model reads text by, if one is named."""
    encoder = None
    if task.base_model is not None:
        encoder, streams = _encoder(streams[0], task.base_model, task.date), streams[1:]
    key = task.fingerprint_key
    sketch = None if key is None else FingerprintSketch(bytes.fromhex(key))
    screening = None if task.screening is None else _screening(task.screening, key)
    readings: list[DatasetReading] = []
    for limits, stream in zip(task.limits, streams, strict=True):
        watchers, is_compared = () if readings else _watchers(sketch, screening), len(task.limits) == 2
        readings.append(read_dataset(stream, limits, encoder, watchers=watchers, is_compared=is_compared))
        if not readings[-1].report.valid:
            break
    reports = tuple(reading.report for reading in readings)
    is_sound = all(report.valid for report in reports)
    compared = {}
    if len(readings) == 2:
        training, validation = readings
        compared["shared"] = _shared(training.row_hashes, validation.row_hashes)
        compared["same_questions"] = _shared(training.question_hashes, validation.question_hashes)
    fingerprint = sketch.fingerprint() if sketch is not None and is_sound else None
    screened = {}
    if screening is not None and is_sound:
        screened = {"screening": screening.facts(), "sample": screening.sample()}
    return InspectionAnswer(reports=reports, fingerprint=fingerprint, **compared, **screened)


def _screening(task: ScreeningTask, key: str | None) -> FileScreening:
    secret = bytes.fromhex(key or "")
    return FileScreening(task.screens, prompts=task.prompts, sample_rows=task.sample_rows, sample_key=secret)


def _watchers(sketch: FingerprintSketch | None, screening: FileScreening | None) -> list[Watcher]:
    watchers: list[Watcher] = [] if screening is None else [screening.add]
    return watchers if sketch is None else [*watchers, lambda _, row: sketch.add(row)]


def _encoder(stream: IO[bytes], name: str, date: datetime.date) -> Encoder:
    return Encoder(base_text_of(BaseTextFiles.model_validate_json(stream.read()), name, date=date))


def _shared(training: Sequence[tuple[int, int]], validation: Sequence[tuple[int, int]]) -> SharedRows:
    trained_on = {content for _, content in training}
    lines = [line for line, content in validation if content in trained_on]
    return SharedRows(count=len(lines), first_lines=tuple(lines[:MAX_LISTED_ROWS]))
