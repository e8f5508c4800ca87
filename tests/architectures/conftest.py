"""Every architecture is trained once, for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from tests.architectures.whole_way import Trained, trained


@pytest.fixture(scope="session")
def way(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """What an architecture of this name went through, in float32 whatever the machine is fast at."""
    torch.set_num_threads(1)

    @cache
    def of(name: str) -> Trained:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEGATE_DTYPE", "float32")
            return trained(name, tmp_path_factory.mktemp("architecture"))

    return of


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
