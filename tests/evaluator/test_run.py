"""The child process, run as the worker runs it, on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from evaluator.gate import decide
from evaluator.models.base_models import cached_digest
from evaluator.runner.registry import PROBES
from policies.contract.adapter_files import COMPANION_FILES, CONFIG_FILE, adapter_config
from policies.contract.artifacts import Digest, TreeManifest, canonical_json, digest_bytes, digest_tree
from policies.contract.base_models import BaseTextFiles
from policies.contract.calibration import ProbeIdentity
from policies.contract.evaluation import EvalReport, SampleRecord
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec, LoraSettings
from policies.contract.release import Decision, GateDecision
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.suite import Capability, Coherence, EvalSuite
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Assignment, Completion, Outcome, Work, WorkerEvent
from policies.documents.schema import CalibrationRecord, Metadata, ReleasePolicy, ReleaseSpec, Rule
from policies.rendering.adapter_companions import companion_files
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from policies.worker.crash import Crash
from tests.gateway.records import put_earlier_adapter
from tests.made_up_calibrations import bindings, calibration_record, rule_calibration
from tests.no_calls_out import Watchman

QUESTIONS = [
    {"id": str(n), "task": "sums", "question": f"{n} + 1?", "choices": [str(n), str(n + 1)], "answer": 1}
    for n in range(9)
]
OPEN_QUESTIONS = [{"id": str(n), "category": "open", "prompt": f"Tell me about {n}."} for n in range(4)]
CHAT_ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


class Job(NamedTuple):
    folder: Path
    store: ArtifactStore
    spec: JobSpec
    policy: ReleasePolicy
    record: TrainingRecord


def put_lines(store: ArtifactStore, rows: Sequence[Mapping[str, object]]) -> Digest:
    return store.put_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


@pytest.fixture
def make_job(tiny_base: Path, tmp_path: Path, make_adapter: Callable[..., Path]) -> Callable[..., Job]:
    def make(scale: float = 0.5, **record_changes: object) -> Job:
        store = ArtifactStore(str(tmp_path / "store"))
        lora = LoraSettings(rank=4, alpha=8, use_rslora=False, target_modules=("q_proj", "v_proj"))
        base = BaseModelSpec(name="tiny", uri=str(tiny_base), lora=lora)
        adapter = make_adapter(scale)
        (adapter / "README.md").unlink()
        (adapter / CONFIG_FILE).write_bytes(adapter_config(lora, base.published))
        for name, content in companion_files(Encoder(load_base_text(tiny_base))).items():
            (adapter / name).write_bytes(content)
        suite = EvalSuite(
            probes=(
                Capability(prompts=put_lines(store, QUESTIONS)),
                Coherence(prompts=put_lines(store, OPEN_QUESTIONS), max_new_tokens=16),
            )
        )
        rule = Rule(id="accuracy", metric="capability.accuracy", min=0)
        spec = ReleaseSpec(suite=suite, rules=(rule,))
        metadata = Metadata(name="test", version="1")
        policy = ReleasePolicy(api_version="tunegate/v1", kind="ReleasePolicy", metadata=metadata, spec=spec)
        job = JobSpec(
            job_id="ftjob-1",
            base_model=base,
            base_text=BaseTextFiles.of(tiny_base).digest,
            training_file=store.put_bytes(b"unused"),
            validation_file=put_lines(store, [CHAT_ROW] * 12),
            seed=1,
            suite=suite,
            policy=store.put_record(policy),
            calibration=store.put_record(calibration(digest_tree(tiny_base), suite)),
        )
        fields = {
            "spec": job.digest,
            "base_model": digest_tree(tiny_base),
            "adapter": store.put_tree(adapter),
            "hyperparameters": ResolvedHyperparameters(
                n_epochs=1, batch_size=1, learning_rate_multiplier=1, learning_rate=1e-4
            ),
            "n_examples": 10,
            "total_steps": 10,
            "trained_tokens": 10,
            "train_loss": 1.0,
            "seconds": 1,
            "tokens_per_second": 1,
            "dtype": "float32",
            "versions": {},
        }
        record = TrainingRecord.model_validate(fields | record_changes)
        folder = tmp_path / "attempt"
        folder.mkdir()
        work = Work(
            kind="evaluate",
            attempt=1,
            spec=job,
            training_record=store.put_record(record),
        )
        assignment = Assignment(
            work=work, store_url=store.url, cache_dir=str(tmp_path / "cache"), threads=1, worker_pid=os.getpid()
        )
        (folder / "assignment.json").write_text(assignment.model_dump_json())
        return Job(folder, ArtifactStores(store.url).of_job(job.job_id), job, policy, record)

    return make


def calibration(base_model: Digest, suite: EvalSuite) -> CalibrationRecord:
    accuracy = rule_calibration("capability.accuracy", "min")
    probes = {each.probe: ProbeIdentity(version=PROBES[type(each)].version) for each in suite.probes}
    about = bindings(base_model=base_model, suite=suite.digest, probes=probes)
    return calibration_record(accuracy, bound_to=about)


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evaluator.run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def answer(folder: Path) -> Completion:
    return Completion.model_validate_json((folder / "completion.json").read_bytes())


def test_an_evaluation_of_a_local_base_calls_nobody(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job, watchman = make_job(), Watchman(tmp_path / "watchman")
    _, errors = start(job.folder, **watchman.environment).communicate()
    assert answer(job.folder).outcome is Outcome.SUCCEEDED, errors
    assert watchman.calls == []


def test_an_assignment_ends_in_report_and_decision(make_job: Callable[..., Job]) -> None:
    job = make_job()
    process = start(job.folder, TUNEGATE_DTYPE="float32")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    completion = answer(job.folder)
    assert completion.outcome is Outcome.SUCCEEDED, completion.error_message
    assert completion.record is not None
    assert completion.decision is not None
    report = job.store.get_record(completion.record, EvalReport)
    decision = job.store.get_record(completion.decision, GateDecision)

    known = calibration(report.base_model, job.policy.spec.suite)
    assert decision == decide(job.policy, report, spec=job.spec.digest, calibration=known)
    assert decision.calibration == known.digest
    assert decision.decision is Decision.RELEASE
    assert report.adapter == job.record.adapter
    assert report.measurement("capability.validation_loss") is not None
    assert report.weight_statistics["frobenius_mean"] > 0
    assert report.samples is not None
    samples = [SampleRecord.model_validate_json(line) for line in job.store.read_bytes(report.samples).splitlines()]
    assert len(samples) == 9 + 12 + 4
    events = [WorkerEvent.model_validate_json(line) for line in output.splitlines()]
    steps = [event.progress.step for event in events if event.progress]
    assert steps == sorted(steps)
    assert steps[-1] == 100


def test_an_adapter_without_effect_is_inconclusive(make_job: Callable[..., Job]) -> None:
    job = make_job(scale=0.0)
    start(job.folder).communicate(timeout=120)
    completion = answer(job.folder)
    assert completion.decision is not None

    assert job.store.get_record(completion.decision, GateDecision).decision is Decision.INCONCLUSIVE


def test_a_record_of_another_base_model_fails_the_job(make_job: Callable[..., Job]) -> None:
    job = make_job(base_model="sha256:" + "0" * 64)
    start(job.folder).communicate(timeout=120)
    completion = answer(job.folder)

    assert completion.outcome is Outcome.FAILED
    assert completion.error_code == "integrity_error"


def assign_adapter(job: Job, adapter: Digest) -> None:
    """As if training had left this one."""
    record = job.store.put_record(job.record.model_copy(update={"adapter": adapter}))
    assignment = json.loads((job.folder / "assignment.json").read_text())
    assignment["work"]["training_record"] = record
    (job.folder / "assignment.json").write_text(json.dumps(assignment))


@pytest.mark.parametrize("name", COMPANION_FILES)
def test_an_adapter_that_brings_another_template_or_end_fails_the_job(make_job: Callable[..., Job], name: str) -> None:
    """Whoever loads it with its own files would have another model than the one that is judged."""
    job = make_job()
    files = job.store.tree(job.record.adapter).files | {name: job.store.put_bytes(b"{{ messages }}")}
    assign_adapter(job, job.store.put_record(TreeManifest(files=files)))
    start(job.folder).communicate(timeout=120)
    completion = answer(job.folder)

    assert completion.error_code == "integrity_error"
    assert name in (completion.error_message or "")


def test_an_adapter_in_the_form_of_earlier_versions_fails_a_new_job(make_job: Callable[..., Job]) -> None:
    job = make_job()
    adapter = put_earlier_adapter(job.store, job.spec.base_model, b"weights")
    assign_adapter(job, adapter)
    start(job.folder).communicate(timeout=120)
    completion = answer(job.folder)

    assert completion.error_code == "integrity_error"
    assert "must hold" in (completion.error_message or "")


def test_a_record_of_another_job_fails_the_job(make_job: Callable[..., Job]) -> None:
    job = make_job(spec="sha256:" + "0" * 64)
    start(job.folder).communicate(timeout=120)

    assert answer(job.folder).error_code == "integrity_error"


def test_sigterm_gives_the_job_back(make_job: Callable[..., Job]) -> None:
    job = make_job()
    process = start(job.folder)
    assert process.stdout is not None
    process.stdout.readline()  # the first progress: the evaluation is under way
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)

    assert answer(job.folder).outcome is Outcome.YIELDED


def test_an_unexpected_error_leaves_no_answer(make_job: Callable[..., Job]) -> None:
    job = make_job()
    (job.folder / "assignment.json").write_text("{}")
    process = start(job.folder)
    process.communicate(timeout=120)

    assert process.returncode != 0
    assert not (job.folder / "completion.json").exists()
    assert Crash.model_validate_json((job.folder / "crash.json").read_bytes()).signature is not None


def report_with(job: Job, cache: Path) -> EvalReport:
    """The report of the same assignment, evaluated with this cache folder."""
    assignment = json.loads((job.folder / "assignment.json").read_text()) | {"cache_dir": str(cache)}
    (job.folder / "assignment.json").write_text(json.dumps(assignment))
    _, errors = start(job.folder).communicate(timeout=120)
    record = answer(job.folder).record
    assert record is not None, errors
    return job.store.get_record(record, EvalReport)


def forge_base_results(honest: Path, forged: Path) -> None:
    """Entries that pass for real ones, by which the base fails every question: no adapter looks worse than it."""
    found = sorted((honest / "base-results").glob("*.json"))
    assert found
    forged.mkdir(parents=True)
    for path in found:
        entry = json.loads(path.read_bytes())
        content = entry["content"]
        content["samples"] = [sample | {"score": 0.0} for sample in content["samples"]]
        forged_digest = digest_bytes(canonical_json(content))
        (forged / path.name).write_bytes(canonical_json({"content": content, "content_digest": forged_digest}))


def test_base_results_that_a_trainer_plants_in_its_own_cache_reach_no_evaluation(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """The trainer's cache of an embedded stack lies below the evaluator's. In the evaluator's own they would count,
    which is why nobody else can write there.
    """
    job = make_job()
    honest = report_with(job, tmp_path / "honest")
    forge_base_results(tmp_path / "honest", tmp_path / "attacked" / "trainer" / "base-results")
    forge_base_results(tmp_path / "honest", tmp_path / "shared" / "base-results")
    accuracy = "capability.accuracy"
    assert report_with(job, tmp_path / "attacked").measurement(accuracy) == honest.measurement(accuracy)
    assert report_with(job, tmp_path / "shared").measurement(accuracy) != honest.measurement(accuracy)


def test_a_digest_that_was_written_into_the_cache_passes_no_other_base_model_off(
    make_job: Callable[..., Job], tiny_base: Path, tmp_path: Path
) -> None:
    """A trainer that trained on another base says so in the cache that an evaluator would have believed."""
    other = "sha256:" + "0" * 64
    job = make_job(base_model=other)
    cached_digest(tiny_base, tmp_path / "cache")
    (remembered,) = (tmp_path / "cache" / "digests").iterdir()
    remembered.write_text(other)
    assert cached_digest(tiny_base, tmp_path / "cache") == other
    start(job.folder).communicate(timeout=120)
    completion = answer(job.folder)
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "integrity_error")
