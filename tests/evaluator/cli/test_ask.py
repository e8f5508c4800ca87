"""`tunegate ask` answers with the adapter that it was given, and looks for its weights nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.backends.engines import open_engine
from evaluator.backends.protocol import ChatPrompt, GenerationSettings
from evaluator.cli.ask import ask
from evaluator.models.adapters import WEIGHTS_FILE
from evaluator.models.base_models import resolve_base_model
from policies.contract.artifacts import digest_tree
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError


@pytest.fixture
def answer(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path | None], str]:
    def answer(adapter: Path | None) -> str:
        ask("Which tap?", str(tiny_base), adapter, 8, None)
        return capsys.readouterr().out

    return answer


def test_the_answer_is_the_adapters(answer: Callable[..., str], make_adapter: Callable[..., Path]) -> None:
    assert answer(None) == answer(make_adapter(0.0)) != answer(make_adapter(5.0, name="strong"))


def test_the_answer_is_the_one_that_an_evaluation_scores(
    answer: Callable[..., str], make_adapter: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(0.5, name="own")
    base = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    with open_engine("transformers", base)(folder, digest_tree(folder)) as (backend, _):
        (scored,) = backend.generate([ChatPrompt.of("Which tap?")], GenerationSettings(8), adapter=True)

    assert answer(folder) == scored.text.strip() + "\n"


def test_an_adapter_without_weights_is_refused(answer: Callable[..., str], make_adapter: Callable[..., Path]) -> None:
    """PEFT by itself would ask the hub for `adapter_model.bin`."""
    folder = make_adapter(0.1)
    (folder / WEIGHTS_FILE).unlink()

    with pytest.raises(ConfigurationError, match="can't be read"):
        answer(folder)
