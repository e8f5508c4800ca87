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
from policies.contract.worker_api import Assignment, Completion, Work, WorkerEvent

HALTED_AT_ITS_SECOND_CHECKPOINT = """
import os, runpy, signal, sys

seen = set()


def halt(event, arguments):
    if event == "os.mkdir" and (name := os.path.basename(os.fspath(arguments[0]))).startswith("checkpoint-"):
        seen.add(name)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGSTOP)


sys.addaudithook(halt)
runpy.run_module("trainer.run", run_name="__main__", alter_sys=True)
"""
"""A training child that stops where it stands when it begins to save for the second time, and goes on when told."""

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
        halts: bool = False,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        work = Work(
            kind="train",
            attempt=1,
            spec=spec,
            resume_from=resume_from,
        )
        store_url = f"file://{folder.parent}/store"
        cache_dir = str(folder.parent / "cache")
        assignment = Assignment(work=work, store_url=store_url, cache_dir=cache_dir, threads=1, processes=processes)
        (folder / "assignment.json").write_text(assignment.model_dump_json())
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(["-c", HALTED_AT_ITS_SECOND_CHECKPOINT] if halts else ["-m", "trainer.run"]),
                str(folder),
            ],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT | dict(environment or {}),
        )

    def events(self) -> Iterator[WorkerEvent]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield WorkerEvent.model_validate_json(line)

    def wait_until_halted(self) -> None:
        """Only of an attempt that halts; it can't have ended before, however late this is asked."""
        state = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert state is not None
        assert state.si_code == os.CLD_STOPPED, "the child ended before its second checkpoint"

    def completion(self) -> Completion:
        for _ in self.events():  # a child whose pipe is full would wait for a reader
            pass
        assert self.process.wait() == 0
        assert self.process.stdout is not None
        self.process.stdout.close()
        return Completion.model_validate_json((self.folder / "completion.json").read_bytes())
