"""Which rows of a training file are asked follows from the adapter: nobody could tell when the file was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter
from evaluator.subject import FileRows
from policies.contract.evaluation import AdapterProof, SampleRecord
from policies.contract.suite import EvalSuite, InDomain
from policies.datasets.chat_rows import ChatMessage, ChatRow

BASE, FIRST, SECOND = ("sha256:" + letter * 64 for letter in "abc")
ROWS = [ChatRow((ChatMessage("user", f"{n}?", 0), ChatMessage("assistant", "Yes.", 1))) for n in range(600)]


def asked(adapter: str, engine: Any, tmp_path: Path, *, seed: int = 1) -> list[str]:
    suite = EvalSuite(probes=(InDomain(max_rows=20),), seed=seed)
    proof = AdapterProof(
        adapter=adapter, base_model=BASE, n_prompts=1, max_abs_logit_difference=1.0, n_adapted_modules=1, loaded=True
    )
    inputs = EvaluationInputs(suite=suite, policy=BASE, proof=proof, training=FileRows(BASE, ROWS))
    evaluation = evaluate_adapter(inputs, engine, cache_dir=tmp_path)
    return [SampleRecord.model_validate_json(line).prompt_id for line in evaluation.samples.splitlines()]


def test_two_adapters_are_asked_other_rows_of_the_same_file(scripted_backend: Any, tmp_path: Path) -> None:
    first, second, other_suite = (
        asked(adapter, scripted_backend(), tmp_path, seed=seed)
        for adapter, seed in ((FIRST, 1), (SECOND, 1), (FIRST, 2))
    )

    assert len({tuple(first), tuple(second), tuple(other_suite)}) == 3


def test_the_same_adapter_is_asked_the_same_rows_again(scripted_backend: Any, tmp_path: Path) -> None:
    assert asked(FIRST, scripted_backend(), tmp_path / "a") == asked(FIRST, scripted_backend(), tmp_path / "b")
