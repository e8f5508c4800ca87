"""Sends a plan to the gateway, so that it can be sent again: nothing is uploaded or submitted twice.

A job that was submitted is known by its metadata, and by an `Idempotency-Key` made of its id there; a file by its
bytes.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import httpx
from pydantic import JsonValue

from gateway.cli.client import checked
from gateway.cli.openai_import.plan import FILE_PARAMS, MARK, Plan, PlannedFile, PlannedJob, reason
from gateway.cli.openai_import.training_files import LocalFile
from gateway.errors import ApiError, InvalidRequest
from policies.cli.progress_display import Display
from policies.errors import IntegrityError

FILES_A_PAGE = 10_000
TRIES = 6
MAX_WAIT_SECONDS = 60.0
REFUSALS = (400, 404, 413, 415)
"""Of one request, whatever else is sent."""
NAME = re.compile(r"[\w .()+-]{1,200}\.jsonl", re.IGNORECASE)

State = Literal["planned", "uploaded", "there already", "submitted", "refused", "left out"]


class Outcome(NamedTuple):
    """What became of an exported file or job."""

    id: str
    """As exported."""
    name: str
    """The file's name, or the job's model there."""
    what: str
    """What the file holds, or the job's base model here."""
    state: State
    here: str | None = None
    """The id of what it is here."""
    why: str = ""


def planned_file(file: PlannedFile) -> Outcome:
    """What would become of it, as far as this machine can say."""
    return Outcome(file.id, file.filename, file.holds, _state(file.local, file.refusal), why=file.why)


def planned_job(job: PlannedJob) -> Outcome:
    return Outcome(job.id, job.model, job.base_model, _state(job.request, job.refusal), why=job.why)


def _state(wanted: object, refusal: InvalidRequest | None) -> State:
    if wanted is not None:
        return "planned"
    return "refused" if refusal else "left out"


class Submission:
    """One run against a gateway; what is done so far can be read at any time, also after an error."""

    def __init__(self, client: httpx.Client, plan: Plan, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._plan = plan
        self._sleep = sleep
        self._uploaded: dict[str, str] = {}
        """Ids here by digest."""
        self._digests: dict[str, str] = {}
        """Of files that were here before, by their ids: each is read once."""
        self._ids: dict[str, str] = {}
        """Ids here by ids there."""
        self._reports: dict[tuple[str, str, str], Mapping[str, Any]] = {}  # Any: a report as JSON
        self.files: list[Outcome] = []
        self.jobs: list[Outcome] = []

    def run(self, shown: Display) -> None:
        """Submit what is not here yet, and show how far it is.

        Raises:
            ApiError: the gateway does not take any more, now or from this key.
        """
        found = {job.id: self._submitted_before(job) for job in self._plan.jobs if job.request}
        self._upload_all({job.id for job in self._plan.jobs if job.request and not found[job.id]}, shown)
        for job in self._plan.jobs:
            self.jobs.append(self._submit(job, found.get(job.id)))
            shown.update("jobs", len(self.jobs), len(self._plan.jobs))

    def _submitted_before(self, job: PlannedJob) -> str | None:
        answer = self._send("GET", "/v1/fine_tuning/jobs", params={f"metadata[{MARK}]": job.id, "limit": 1})
        for earlier in answer.json()["data"]:
            for param in FILE_PARAMS:
                if job.request and job.request.get(param) and earlier[param]:
                    self._ids[str(job.request[param])] = earlier[param]
            return str(earlier["id"])
        return None

    def _upload_all(self, jobs: set[str], shown: Display) -> None:
        """The files of these jobs, and those of none."""
        of_jobs = {str(job.request.get(param)) for job in self._plan.jobs if job.request for param in FILE_PARAMS}
        wanted = {
            str(job.request.get(param))
            for job in self._plan.jobs
            if job.request and job.id in jobs
            for param in FILE_PARAMS
        }
        missing = {
            file.id: file.local.size_bytes
            for file in self._plan.files
            if file.local and (file.id in wanted or file.id not in of_jobs)
        }
        there = self._ids_by_size(set(missing.values()))
        for file in self._plan.files:
            self.files.append(self._upload(file, there, is_wanted=file.id in missing))
            shown.update("files", len(self.files), len(self._plan.files))

    def _ids_by_size(self, sizes: set[int]) -> dict[int, list[str]]:
        """The tenant's files of these sizes, which may be those that an earlier run uploaded."""
        found: dict[int, list[str]] = {size: [] for size in sizes}
        for file in self._all_files() if sizes else ():
            if file["bytes"] in found:
                found[file["bytes"]].append(file["id"])
        return found

    def _all_files(self) -> Iterator[dict[str, Any]]:
        params: dict[str, str | int] = {"purpose": "fine-tune", "limit": FILES_A_PAGE}
        while True:
            page = self._send("GET", "/v1/files", params=params).json()
            yield from page["data"]
            if not page["has_more"]:
                return
            params["after"] = page["data"][-1]["id"]

    def _upload(self, file: PlannedFile, there: Mapping[int, list[str]], *, is_wanted: bool) -> Outcome:
        planned = planned_file(file)
        if file.local is None:
            return planned
        if not is_wanted:
            return planned._replace(state="there already", here=self._ids.get(file.id), why="its jobs were submitted")
        here = self._uploaded.get(file.local.digest) or self._find(file.local, there[file.local.size_bytes])
        state: State = "there already" if here else "uploaded"
        try:
            here = here or self._post_file(file)
        except InvalidRequest as error:
            return planned._replace(state="refused", why=reason(error))
        self._uploaded[file.local.digest] = self._ids[file.id] = here
        return planned._replace(state=state, here=here)

    def _find(self, local: LocalFile, candidates: list[str]) -> str | None:
        """The one of the candidates that has these very bytes."""
        return next((each for each in candidates if self._digest(each) == local.digest), None)

    def _digest(self, file_id: str) -> str:
        if file_id not in self._digests:
            self._digests[file_id] = self._read_digest(file_id)
        return self._digests[file_id]

    def _read_digest(self, file_id: str) -> str:
        for attempt in range(1, TRIES + 1):
            digest = hashlib.sha256()
            with self._client.stream("GET", f"/v1/files/{file_id}/content") as answer:
                if attempt < TRIES and self._has_waited(answer):
                    continue
                for piece in checked(answer).iter_bytes():
                    digest.update(piece)
            break
        return f"sha256:{digest.hexdigest()}"

    def _post_file(self, file: PlannedFile) -> str:
        assert file.local is not None
        name = file.filename if NAME.fullmatch(file.filename) else f"{file.id}.jsonl"
        with file.local.path.open("rb") as stream:
            answer = self._send("POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": (name, stream)})
        uploaded = answer.json()
        if uploaded["bytes"] != file.local.size_bytes:
            raise IntegrityError(f"{file.local.path} has changed since it was checked; start again")
        return str(uploaded["id"])

    def _submit(self, job: PlannedJob, here: str | None) -> Outcome:
        planned = planned_job(job)
        if job.request is None:
            return planned
        if here is not None:
            return planned._replace(state="there already", here=here, why="")
        try:
            body = job.request | {each: self._usable(job, each) for each in FILE_PARAMS if job.request.get(each)}
            headers = {"idempotency-key": f"openai-import/{job.id}"}
            created = self._send("POST", "/v1/fine_tuning/jobs", json=body, headers=headers).json()
        except InvalidRequest as error:
            if error.code == "idempotency_key_reused":
                return planned._replace(state="there already", why="it was submitted before, with other settings")
            return planned._replace(state="refused", why=reason(error))
        return planned._replace(state="submitted", here=str(created["id"]))

    def _usable(self, job: PlannedJob, param: str) -> str:
        """The file's id here, once the gateway's dry run for the job's base model finds nothing wrong with it."""
        assert job.request is not None
        there = str(job.request[param])
        here = self._ids.get(there)
        if here is None:
            raise InvalidRequest(f"{param} {there} was refused", param, "file_not_found")
        problems = self._problems(here, job.request)
        if param == "validation_file":
            problems = [each for each in problems if each["code"] != "too_few_rows"]
        if problems:
            first = problems[0]
            place = f"line {first['line']}: " if first["line"] else ""
            message = f"{param} {there}: {place}{first['message']} ({first['code']}); {first['fix']}"
            raise InvalidRequest(message, param, "invalid_training_file")
        return here

    def _problems(self, file_id: str, request: Mapping[str, JsonValue]) -> list[dict[str, Any]]:
        method = request["method"]
        assert isinstance(method, dict)
        key = (file_id, str(request["model"]), str(method["type"]))
        if key not in self._reports:
            path, params = f"/v1/guardrail/files/{file_id}/validate", {"model": key[1], "method": key[2]}
            self._reports[key] = self._send("POST", path, params=params).json()
        errors: list[dict[str, Any]] = self._reports[key]["errors"]
        return errors

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:  # Any: as httpx takes them
        """The answer; where the gateway says when to come again, it is asked again.

        Raises:
            InvalidRequest: it refuses this request.
            ApiError: it does not take any.
        """
        for attempt in range(1, TRIES + 1):
            answer = self._client.request(method, path, **content)
            if attempt == TRIES or not self._has_waited(answer):
                break
            _rewind(content)
        try:
            return checked(answer)
        except ApiError as error:
            if answer.status_code in REFUSALS:
                raise InvalidRequest(error.message, error.param, error.code) from error
            raise

    def _has_waited(self, answer: httpx.Response) -> bool:
        """Whether the gateway said when to come again, and that time has passed."""
        wait = answer.headers.get("retry-after", "")
        if answer.status_code not in (429, 503) or not wait.isdecimal():
            return False
        self._sleep(min(float(wait), MAX_WAIT_SECONDS))
        return True


def _rewind(content: Mapping[str, Any]) -> None:
    for _, stream in content.get("files", {}).values():
        stream.seek(0)
