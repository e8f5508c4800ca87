"""Exports as customers of OpenAI have them: dumps of the client's lists, and the files' bytes beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Object = dict[str, Any]  # Any: JSON


def file_object(file_id: str, content: bytes, **fields: object) -> Object:
    file: Object = {"id": file_id, "object": "file", "bytes": len(content), "created_at": 1_700_000_000}
    file |= {"filename": f"{file_id}-train.jsonl", "purpose": "fine-tune", "status": "processed"}
    return file | {"expires_at": None, "status_details": None} | fields


def job_object(job_id: str, training_file: str, **fields: object) -> Object:
    """A job that succeeded, as the API shows it."""
    hyperparameters = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8}
    job: Object = {
        "id": job_id,
        "object": "fine_tuning.job",
        "created_at": 1_700_000_100,
        "finished_at": 1_700_000_900,
        "model": "gpt-4o-mini-2024-07-18",
        "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme:taps:AbC123",
        "organization_id": "org-acme",
        "status": "succeeded",
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "training_file": training_file,
        "validation_file": None,
        "result_files": ["file-result"],
        "trained_tokens": 5768,
        "error": {"code": None, "message": None, "param": None},
        "seed": 683058546,
        "estimated_finish": None,
        "integrations": [],
        "metadata": {"team": "taps"},
        "user_provided_suffix": "taps",
    }
    return job | fields


def rows(n_rows: int = 12, word: str = "plus") -> bytes:
    """A sound training file."""
    conversations = (
        [{"role": "user", "content": f"{n} {word} one?"}, {"role": "assistant", "content": f"It is {n + 1}."}]
        for n in range(n_rows)
    )
    return b"".join(json.dumps({"messages": each}).encode() + b"\n" for each in conversations)


def save(folder: Path, *, objects: list[Object], contents: dict[str, bytes]) -> Path:
    """A folder with one list of all objects, and the bytes by their names."""
    folder.mkdir(exist_ok=True)
    (folder / "export.json").write_text(json.dumps({"object": "list", "data": objects, "has_more": False}, indent=2))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder
