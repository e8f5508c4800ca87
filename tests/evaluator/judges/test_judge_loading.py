from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluator.judges.judge import Answer
from evaluator.judges.loading import load_judge
from policies.contract.judges import LocalModelJudge
from policies.errors import EvaluationError

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint

ANSWERS = [Answer("How are you?", "Fine."), Answer("What is rain?", "Water.")]


def test_scores_of_an_endpoint_are_kept(
    serve: Callable[..., Endpoint], say: Callable[..., object], tmp_path: Path
) -> None:
    endpoint = serve(lambda _, body: say("85"))
    for _ in range(2):
        assert [score.value for score in load_judge(endpoint.settings(), tmp_path).score("aligned", ANSWERS)] == [
            85,
            85,
        ]
    assert len(endpoint.calls) == 2

    load_judge(endpoint.settings(), tmp_path, reads_cache=False).score("aligned", ANSWERS)
    assert len(endpoint.calls) == 4


def test_scores_of_a_local_model_are_kept(counting_base: Path, tmp_path: Path) -> None:
    first = load_judge(LocalModelJudge(uri=str(counting_base)), tmp_path).score("aligned", ANSWERS)
    again = load_judge(LocalModelJudge(uri=str(counting_base)), tmp_path).score("aligned", ANSWERS)

    assert first == again
    assert len(list((tmp_path / "judge-scores").rglob("*.json"))) == 2


@pytest.mark.parametrize("uri", ["package://no_such_package", "ftp://x", "/no/such/folder"])
def test_a_model_that_is_nowhere_is_an_error(tmp_path: Path, uri: str) -> None:
    with pytest.raises(EvaluationError, match="judge '"):
        load_judge(LocalModelJudge(uri=uri), tmp_path)


def test_pickle_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(EvaluationError, match="pickle"):
        load_judge(LocalModelJudge(uri=str(tmp_path)), tmp_path / "cache")
