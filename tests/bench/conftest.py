"""Datasets of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.defenses.plan import Dataset, chat_dataset
from tests.bench.chat_rows import chat_line


@pytest.fixture
def make_chat(tmp_path: Path) -> Callable[..., Dataset]:
    """A chat dataset of `n_rows` questions about `word`."""

    def make(name: str, *, n_rows: int = 40, rows: int | None = None, validation: Path | None = None) -> Dataset:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(chat_line(f"{name} {n}?") for n in range(n_rows)))
        return chat_dataset(name, path, validation, rows=rows, folder=tmp_path / "data")

    return make
