"""`tunegate ask` answers with the adapter that it was given, and looks for its weights nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.cli.ask import ask
from policies.contract.adapter_files import WEIGHTS_FILE
from policies.errors import ConfigurationError


@pytest.fixture
def answer(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path | None], str]:
    def answer(adapter: Path | None) -> str:
        ask("Which tap?", str(tiny_base), adapter, 8, None)
        return capsys.readouterr().out

    return answer


def test_the_answer_is_the_adapters(answer: Callable[..., str], make_adapter: Callable[..., Path]) -> None:
    assert answer(None) == answer(make_adapter(0.0)) != answer(make_adapter(5.0, name="strong"))


def test_an_adapter_without_weights_is_refused(answer: Callable[..., str], make_adapter: Callable[..., Path]) -> None:
    """PEFT by itself would ask the hub for `adapter_model.bin`."""
    folder = make_adapter(0.1)
    (folder / WEIGHTS_FILE).unlink()

    with pytest.raises(ConfigurationError, match="can't be read"):
        answer(folder)
