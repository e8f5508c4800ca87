"""A training child as a worker would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from policies.contract.jobs import JobSpec
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Assignment, Claim, Completion, WorkerEvent

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def written_by(spec: JobSpec, store: ArtifactStore) -> ArtifactStore:
    """What the job's workers left behind below `store`."""
    return ArtifactStores(store.url).of_job(spec.job_id)


class Attempt:
    """One child in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        spec: JobSpec,
        resume_from: CheckpointRecord | None = None,
        *,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        claim = Claim(
            kind="train",
            attempt_token="attempt_1",
            attempt=1,
            spec=spec,
            resume_from=resume_from,
            heartbeat_seconds=1,
            lease_seconds=10,
        )
        store_url = f"file://{folder.parent}/store"
        cache_dir = str(folder.parent / "cache")
        assignment = Assignment(claim=claim, store_url=store_url, cache_dir=cache_dir, threads=1, processes=processes)
        (folder / "assignment.json").write_text(assignment.model_dump_json())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.run", str(folder)],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT | dict(environment or {}),
        )

    def events(self) -> Iterator[WorkerEvent]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield WorkerEvent.model_validate_json(line)

    def completion(self) -> Completion:
        assert self.process.wait(timeout=120) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        return Completion.model_validate_json((self.folder / "completion.json").read_bytes())
