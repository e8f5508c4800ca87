"""Files are read in a process that the kernel limits, that knows nothing else, and that nobody has to wait for."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import IO

import psutil
import pytest

from gateway.files.dataset.errors import InspectionCrashed, InspectionGivenUp, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionTask, inspect
from gateway.files.dataset.report import DatasetLimits
from gateway.files.dataset.sandbox import ChildLimits, inspect_in_child
from policies.errors import IntegrityError
from tests.gateway.conftest import chat_jsonl

LIMITS = DatasetLimits(max_rows=10**9, max_reported=5)
ROOMY = ChildLimits(cpu_seconds=60, memory_bytes=1 << 30, look_seconds=0.05)
TASK = InspectionTask(limits=(LIMITS,), fingerprint_key="0f" * 16)


class Endless(io.RawIOBase):
    """A file that never ends, of rows that all differ."""

    PIECE = chat_jsonl(5000).replace(b"What is", b"In chapter @, what is")

    def __init__(self) -> None:
        self._numbers = count()

    def read(self, size: int = -1, /) -> bytes:
        return self.PIECE.replace(b"@", b"%d" % next(self._numbers))


@contextmanager
def endless() -> Iterator[IO[bytes]]:
    yield Endless()  # type: ignore[misc]  # reads, and no more is asked of it


def children() -> list[psutil.Process]:
    found = psutil.Process(os.getpid()).children()
    return [child for child in found if "gateway.files.dataset.child" in child.cmdline()]


def test_answer_is_that_of_reading_the_files_here() -> None:
    """Row by row; the rows' hashes, which Python keys anew in each process, stay in it."""
    task = InspectionTask(limits=(LIMITS, LIMITS._replace(min_rows=1)), fingerprint_key="0f" * 16)
    contents = [chat_jsonl(40), b"".join(chat_jsonl(45).splitlines(keepends=True)[38:])]
    apart = inspect_in_child(task, [partial(io.BytesIO, each) for each in contents], limits=ROOMY)
    assert apart == inspect(task, [io.BytesIO(each) for each in contents])
    assert (apart.shared.count, apart.shared.first_lines) == (2, (1, 2))


def test_second_file_is_not_read_after_one_that_is_refused() -> None:
    task = InspectionTask(limits=(LIMITS, LIMITS))
    answer = inspect_in_child(task, [lambda: io.BytesIO(b"no JSON"), endless], limits=ROOMY)
    assert [report.valid for report in answer.reports] == [False]


def test_file_that_takes_too_much_time_is_named_for_it() -> None:
    with pytest.raises(InspectionTooSlow, match="1 s of processor time") as error:
        inspect_in_child(TASK, [endless], limits=ROOMY._replace(cpu_seconds=1))
    assert error.value.code == "validation_timed_out"
    assert children() == []


def test_file_that_takes_too_much_memory_is_named_for_it() -> None:
    with pytest.raises(InspectionTooLarge, match="176 MiB of memory"):
        inspect_in_child(TASK, [endless], limits=ROOMY._replace(memory_bytes=176 << 20))
    assert children() == []


def test_child_is_killed_when_nobody_wants_its_answer() -> None:
    answers = iter([True, False])
    with pytest.raises(InspectionGivenUp):
        inspect_in_child(TASK, [endless], limits=ROOMY, go_on=lambda: next(answers))
    assert children() == []


def test_crashed_child_is_told_from_a_file_that_takes_too_much() -> None:
    def kill() -> bool:
        for child in children():
            child.kill()
        return True

    with pytest.raises(InspectionCrashed, match="exit code -9") as error:
        inspect_in_child(TASK, [endless], limits=ROOMY, go_on=kill)
    assert error.value.signature is None


def test_child_that_crashes_by_itself_is_signed() -> None:
    """A task without a limit for its file is a mistake of ours, which each child makes again."""
    task, signatures = TASK.model_copy(update={"limits": ()}), set()
    for _ in range(2):
        with pytest.raises(InspectionCrashed, match="Traceback") as error:
            inspect_in_child(task, [partial(io.BytesIO, chat_jsonl())], limits=ROOMY)
        signatures.add(error.value.signature)
    assert len(signatures) == 1
    assert None not in signatures


def test_child_is_given_no_secret_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_TRAINER_TOKEN", "t" * 40)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 40)
    seen: list[psutil.Process] = []

    def look() -> bool:
        (child,) = children()
        environment, files = child.environ(), child.open_files()
        assert set(environment) == {"PYTHONPATH", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM", "LC_ALL"}
        assert child.net_connections() == []
        assert [file.path for file in files if not file.path.endswith((".so", ".py", ".pyc", ".pth"))] == []
        seen.append(child)
        return False

    with pytest.raises(InspectionGivenUp):
        inspect_in_child(TASK, [endless], limits=ROOMY, go_on=look)
    assert len(seen) == 1


@contextmanager
def broken() -> Iterator[IO[bytes]]:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            if not content:
                raise IntegrityError("other bytes than its name says")
            return content

    yield Broken(chat_jsonl())


def test_file_whose_bytes_are_not_to_be_had_has_no_answer() -> None:
    """Where the bytes turn out to be wrong at their end, all that the child saw was a sound file."""
    with pytest.raises(IntegrityError, match="other bytes"):
        inspect_in_child(TASK, [broken], limits=ROOMY)
