"""Jobs as the gateway's API presents them to the demonstration."""

from __future__ import annotations

from typing import Literal

from openai.types.fine_tuning import FineTuningJob

Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]


def made_job(
    phase: str,
    *,
    status: Status = "running",
    progress: dict[str, object] | None = None,
    eta_seconds: float | None = None,
    model: str | None = None,
    error: str | None = None,
) -> FineTuningJob:
    return FineTuningJob.model_validate(
        {
            "id": "ftjob-1",
            "created_at": 0,
            "model": "smollm2-135m-instruct",
            "fine_tuned_model": model,
            "status": status,
            "error": {"code": error, "message": f"{error} it is", "param": None} if error else None,
            "object": "fine_tuning.job",
            "organization_id": "demo",
            "result_files": [],
            "seed": 7,
            "training_file": "file-1",
            "hyperparameters": {},
            "guardrail": {"phase": phase, "progress": progress, "eta_seconds": eta_seconds, "defenses": []},
        }
    )
