"""Records of earlier versions keep their digest."""

from __future__ import annotations

from policies.contract.artifacts import digest_bytes
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Completion, Outcome

DIGEST = digest_bytes(b"x")


def record(**fields: object) -> TrainingRecord:
    sizes = ResolvedHyperparameters(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0, learning_rate=2e-4)
    known = {"spec": DIGEST, "base_model": DIGEST, "adapter": DIGEST, "hyperparameters": sizes, "n_examples": 1}
    known |= {"total_steps": 1, "trained_tokens": 1, "train_loss": 1.0, "seconds": 1.0, "tokens_per_second": 1.0}
    return TrainingRecord.model_validate(known | {"dtype": "float32", "versions": {}} | fields)


def test_record_without_screening_is_written_and_named_as_before() -> None:
    assert "screening" not in record().model_dump(mode="json")
    assert record(screening=DIGEST).digest != record().digest


def test_answer_without_screening_is_what_an_earlier_gateway_reads() -> None:
    assert "screening" not in Completion(outcome=Outcome.FAILED).model_dump(mode="json")
