"""Names that exist: without them generated uploads and jobs would never get past the first check."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.generation import GenerationMode

BASE_MODEL = "smollm2-135m-instruct"
ROW = b'{"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1."}]}\n'


@schemathesis.hook
def before_call(
    context: HookContext, case: Case[Any], kwargs: dict[str, Any]
) -> None:  # Any: arguments of the transport
    """Every second case that fits the description is about a file, an upload, a model and a job that there are."""
    is_sound = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if not is_sound or not isinstance(case.body, dict) or int(case.id.encode().hex(), 16) % 2:
        return
    if case.operation.label == "POST /v1/fine_tuning/jobs":
        sound = {name: value for name, value in case.body.items() if name != "validation_file"}
        case.body = {**sound, "model": BASE_MODEL, "training_file": os.environ["FUZZED_FILE"]}
    elif case.operation.label == "POST /v1/uploads":
        case.body = {**case.body, "bytes": len(ROW), "filename": "rows", "mime_type": "text/jsonl"}
    elif case.operation.label == "POST /v1/uploads/{upload_id}/parts":
        case.path_parameters["upload_id"] = os.environ["FUZZED_UPLOAD"]
    elif case.operation.label == "POST /v1/uploads/{upload_id}/complete":
        case.path_parameters["upload_id"], part_id = os.environ["FUZZED_PART"].split()
        case.body = {"part_ids": [part_id]}
    elif case.operation.label == "POST /v1/files":
        fields = {name: (None, str(value)) for name, value in case.body.items() if name != "file"}
        kwargs["files"] = fields | {"file": ("rows.jsonl", ROW)}
