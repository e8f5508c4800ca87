"""Every architecture is trained once, for all tests."""

from __future__ import annotations

import pytest
import torch

from tests.architectures import whole_way
from tests.architectures.bases import ARCHITECTURES
from tests.architectures.whole_way import Trained


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What an architecture went through, in float32 whatever the machine is fast at."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEGATE_DTYPE", "float32")
        return whole_way.trained(request.param, tmp_path_factory.mktemp("architecture"))


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
