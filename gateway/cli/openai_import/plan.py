"""What becomes of each exported file and job: a request to this gateway, or the reason why there is none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue, ValidationError

from gateway.cli.openai_import.exported import Export, ExportedFile, ExportedJob
from gateway.cli.openai_import.training_files import LocalFile, check, find, names_in
from gateway.errors import InvalidRequest
from gateway.files.dataset.validate import TRAINED_BY
from gateway.fine_tuning.schemas import MAX_METADATA_PAIRS, CreateJobRequest
from gateway.fine_tuning.spec import require_supported, require_trainable_numbers
from policies.contract.hyperparameters import DpoHyperparameters, Hyperparameters

MARK = "openai_job_id"
"""Key of the metadata by which a resubmitted job is known again."""
NOT_RESUBMITTED = ("failed", "cancelled")
SNAPSHOT = re.compile(r"-\d{4}(-\d{2}-\d{2})?$")
"""The date of a model: `gpt-4o-mini-2024-07-18`, `gpt-3.5-turbo-0125`."""
ANY_MODEL = ""
FILE_PARAMS = ("training_file", "validation_file")
HYPERPARAMETERS = {"supervised": Hyperparameters, "dpo": DpoHyperparameters}


@dataclass(frozen=True)
class PlannedFile:
    """A file that is uploaded, or not."""

    id: str
    filename: str
    local: LocalFile | None = None
    refusal: InvalidRequest | None = None
    """Why it can't be uploaded."""
    left_out: str = ""
    """Why nobody would want it to be."""

    @property
    def why(self) -> str:
        return self.left_out if self.refusal is None else reason(self.refusal)

    @property
    def holds(self) -> str:
        return f"{self.local.rows} {self.local.kind} rows" if self.local else ""


@dataclass(frozen=True)
class PlannedJob:
    """A job that is submitted, or not."""

    id: str
    model: str
    request: dict[str, JsonValue] | None = None
    """Body of the request, with the files' ids as exported."""
    notes: tuple[str, ...] = ()
    """What does not carry over, or is another thing here."""
    refusal: InvalidRequest | None = None
    left_out: str = ""

    @property
    def why(self) -> str:
        return "; ".join(self.notes) or self.left_out if self.refusal is None else reason(self.refusal)

    @property
    def base_model(self) -> str:
        return str(self.request["model"]) if self.request else ""


@dataclass(frozen=True)
class Plan:
    """Jobs from the oldest on, and the files."""

    files: tuple[PlannedFile, ...]
    jobs: tuple[PlannedJob, ...]


def reason(refusal: InvalidRequest) -> str:
    return f"{refusal.message} ({refusal.code})"


def make_plan(export: Export, folders: Sequence[Path], *, models: Mapping[str, str], all_jobs: bool) -> Plan:
    """Decide about each file and job.

    Args:
        export: what OpenAI's API said.
        folders: where the files' bytes may lie.
        models: base models here by those of OpenAI; that of `ANY_MODEL` stands for all others.
        all_jobs: resubmit also what failed or was cancelled there.
    """
    files = {file.id: file for file in _plan_files(export, folders)}
    oldest_first = sorted(export.jobs.values(), key=lambda job: (job.created_at, job.id))
    planned = [_plan_job(job, files, models=models, all_jobs=all_jobs) for job in oldest_first]
    jobs = tuple(_with_attempts(planned, files))
    named = {each for job in oldest_first for each in _files_of(job)}
    wanted = {job.request.get(param) for job in jobs if job.request for param in FILE_PARAMS}
    refused = {each for job in jobs if job.refusal for each in _files_of(export.jobs[job.id])}
    return Plan(tuple(_as_used(file, named - wanted, refused) for file in files.values()), jobs)


def _with_attempts(jobs: Sequence[PlannedJob], files: Mapping[str, PlannedFile]) -> Iterator[PlannedJob]:
    """Says of jobs on the same bytes that each is a further attempt, which the gate makes harder."""
    attempts: Counter[str] = Counter()
    for job in jobs:
        file = files[str(job.request["training_file"])] if job.request else None
        if file is not None and file.local is not None:
            attempts[file.local.digest] += 1
            attempt = attempts[file.local.digest]
            if attempt > 1:
                note = (
                    f"attempt {attempt} on this training file, and judged as such unless the earlier ones are released"
                )
                job = replace(job, notes=(*job.notes, note))
        yield job


def _files_of(job: ExportedJob) -> tuple[str | None, ...]:
    return job.training_file, job.validation_file


def _as_used(file: PlannedFile, unwanted: set[str | None], refused: set[str | None]) -> PlannedFile:
    """Files are brought along for the jobs that are submitted, and those that no job names."""
    if file.id not in unwanted or (file.refusal and file.id in refused):
        return file
    return PlannedFile(file.id, file.filename, left_out="no job that is submitted uses it")


def _plan_files(export: Export, folders: Sequence[Path]) -> Iterator[PlannedFile]:
    names = names_in(folders)
    filenames = Counter(file.filename for file in export.files.values())
    trained_on = {job.training_file for job in export.jobs.values()}
    validated_on = {job.validation_file for job in export.jobs.values() if job.validation_file} - trained_on
    only_named = [ExportedFile(id=each) for each in sorted((trained_on | validated_on) - export.files.keys())]
    for file in (*export.files.values(), *only_named):
        if file.purpose != "fine-tune":
            yield PlannedFile(file.id, file.filename, left_out=f"its purpose is {file.purpose}")
            continue
        try:
            path = find(file, names, filenames)
            local = check(path, file, is_trained_on=file.id not in validated_on)
        except InvalidRequest as error:
            yield PlannedFile(file.id, file.filename, refusal=error)
        else:
            yield PlannedFile(file.id, file.filename or local.path.name, local)


def _plan_job(
    job: ExportedJob, files: Mapping[str, PlannedFile], *, models: Mapping[str, str], all_jobs: bool
) -> PlannedJob:
    if job.status in NOT_RESUBMITTED and not all_jobs:
        return PlannedJob(job.id, job.model, left_out=f"it {_ended(job.status)} there; --all submits it")
    notes: list[str] = []
    try:
        request = _request(job, model=_model(job, models), notes=notes)
        for param in FILE_PARAMS:
            _require_usable(job, param, files)
    except InvalidRequest as error:
        return PlannedJob(job.id, job.model, refusal=error)
    return PlannedJob(job.id, job.model, request, tuple(notes))


def _ended(status: str) -> str:
    return "failed" if status == "failed" else f"was {status}"


def _model(job: ExportedJob, models: Mapping[str, str]) -> str:
    """An exact name goes before one without its date, and that before the model for all others."""
    if job.model in models:
        return models[job.model]
    if job.model.startswith("ft:"):
        message = (
            f"it goes on from {job.model}, whose weights stay there; map that very name with --model to go on here"
        )
        raise InvalidRequest(message, "model", "model_not_found")
    found = models.get(SNAPSHOT.sub("", job.model), models.get(ANY_MODEL))
    if found is None:
        raise InvalidRequest(
            f"say which base model takes its place: --model {job.model}=NAME", "model", "model_not_found"
        )
    return found


def _request(job: ExportedJob, *, model: str, notes: list[str]) -> dict[str, JsonValue]:
    """The body, as this gateway's own schema takes it."""
    method = job.method.type if job.method else "supervised"
    body: dict[str, JsonValue] = {
        "model": model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "suffix": _suffix(job, notes),
        "seed": job.seed,
        "metadata": _metadata(job, notes),
        "method": {"type": method, **_settings(job, method, notes)},
    }
    for integration in job.integrations or ():
        notes.append(f"the integration {str(integration.get('type'))[:32]} is left out; use tunegate jobs export")
    wanted: dict[str, JsonValue] = {name: value for name, value in body.items() if value is not None}
    try:
        request = CreateJobRequest.model_validate(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{where}: {first['msg']}", where) from error
    require_supported(request)
    require_trainable_numbers(request)
    return wanted


def _settings(job: ExportedJob, method: str, notes: list[str]) -> dict[str, JsonValue]:
    """Below the method's name, as new requests have them; the deprecated ones where there are no others."""
    kind = HYPERPARAMETERS.get(method)
    if kind is None:
        return {}
    settings = (job.method.model_extra or {}).get(method) if job.method else None
    nested = settings.get("hyperparameters") if isinstance(settings, dict) else None
    asked = nested if isinstance(nested, dict) and nested else job.hyperparameters or {}
    known = {name: value for name, value in asked.items() if name in kind.model_fields and value is not None}
    for name in sorted(asked.keys() - kind.model_fields.keys()):
        notes.append(f"the hyperparameter {name[:64]} is unknown here")
    if known.get("learning_rate_multiplier", "auto") != "auto":
        notes.append("learning_rate_multiplier multiplies the base model's own learning rate here")
    return {method: {"hyperparameters": known}} if known else {}


def _suffix(job: ExportedJob, notes: list[str]) -> str | None:
    """As asked for there, or read off the model's name, `ft:base:organisation:suffix:id`."""
    parts = (job.fine_tuned_model or "").split(":")
    asked = job.user_provided_suffix or job.suffix or (parts[3] if len(parts) == 5 else None)
    if not asked:
        return None
    suffix = re.sub(r"[^A-Za-z0-9._-]+", "-", asked)[:64].strip("._-")
    if suffix != asked:
        notes.append(
            f"the suffix {asked[:64]!r} is {suffix!r} here" if suffix else f"no suffix like {asked[:64]!r} here"
        )
    return suffix or None


def _metadata(job: ExportedJob, notes: list[str]) -> dict[str, JsonValue]:
    own = dict(job.metadata or {})
    if len(own) < MAX_METADATA_PAIRS or MARK in own:
        return {**own, MARK: job.id}
    notes.append(f"its metadata is full, so {MARK} is not added")
    return own


def _require_usable(job: ExportedJob, param: str, files: Mapping[str, PlannedFile]) -> None:
    file_id = getattr(job, param)
    if file_id is None:
        return
    file = files[file_id]
    if file.refusal is not None:
        raise InvalidRequest(f"{param} {file_id}: {file.refusal.message}", param, file.refusal.code)
    if file.local is None:
        raise InvalidRequest(f"{param} {file_id}: {file.left_out}", param, "wrong_file_purpose")
    method = job.method.type if job.method else "supervised"
    if TRAINED_BY[file.local.kind] != method:
        message = f"{param} {file_id} has {file.local.kind} rows, on which {method} does not train"
        raise InvalidRequest(message, param, "invalid_training_file")
    if param == "validation_file":
        training = files[job.training_file].local
        if training is not None and training.digest == file.local.digest:
            raise InvalidRequest(
                "validation_file has the bytes of training_file", param, "validation_file_is_training_file"
            )
