"""Computes a report's figures anew from its stored samples: what can't be had from them again is an integrity error.

Probes measure by a pure function of the paired samples (`evaluator/probe.py`), so neither model nor judge is needed.
What this proves: the samples are those that the report names, and every figure follows from them. What it can't prove:
that the samples were drawn and scored as the suite says. For that the evaluation is repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from evaluator.runner.registry import PROBES
from evaluator.runner.twin import gaps, measured
from evaluator.samples import Pair, Sample, pair_samples
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.evaluation import EvalReport, Measurement, ProbeResult, SampleOutcome, SampleRecord
from policies.contract.jobs import JobSpec
from policies.contract.merkle import jsonl_lines, merkle_root
from policies.contract.probe_overlap import GapTest
from policies.contract.store import ArtifactStore
from policies.contract.suite import ProbeSettings
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import ConfigurationError, EvaluationError, IntegrityError

_ABSENT = "absent"


class Filed(NamedTuple):
    """A report with what is needed to compute its figures anew."""

    report: EvalReport
    policy: ReleasePolicy
    samples: bytes
    calibration: CalibrationRecord | None = None


def rescore(report_path: Path, policy: ReleasePolicy) -> EvalReport:
    """Re-score the report in a file from the samples beside it."""
    filed = filed_at(report_path, policy)
    return rescore_report(filed.report, filed.policy, filed.samples)


def filed_at(report_path: Path, policy: ReleasePolicy) -> Filed:
    """A report in a file, and the samples beside it."""
    return Filed(read_report(report_path), policy, read_samples(report_path))


def filed_in(store: ArtifactStore, report: Digest) -> Filed:
    """A report of the store, with the samples and the policy that it names, and its job's calibration."""
    record = store.get_record(report, EvalReport)
    if record.samples is None:
        raise IntegrityError(f"report {report} names no samples, so nothing can be recomputed")
    policy, samples = store.get_record(record.policy, ReleasePolicy), store.read_bytes(record.samples)
    return Filed(record, policy, samples, _calibration_of(store, record.spec))


def _calibration_of(store: ArtifactStore, spec: Digest | None) -> CalibrationRecord | None:
    if spec is None or not store.exists(spec):
        return None
    calibration = store.get_record(spec, JobSpec).calibration
    return None if calibration is None else store.get_record(calibration, CalibrationRecord)


def rescore_report(report: EvalReport, policy: ReleasePolicy, samples: bytes) -> EvalReport:
    """The same report with every measurement computed anew.

    Raises:
        IntegrityError: the samples are others than the report names, or a figure does not follow from them.
        EvaluationError: the report was made by another version of a probe, or of the records.
    """
    if (report.policy, report.suite) != (policy.digest, policy.spec.suite.digest):
        raise IntegrityError(f"the report was made under policy {report.policy}; the one given is {policy.digest}")
    records = check_samples(report, samples)
    by_probe: dict[str, list[SampleRecord]] = defaultdict(list)
    for record in records:
        by_probe[record.probe].append(record)
    unknown = set(by_probe) - {result.probe for result in report.probes}
    if unknown:
        raise IntegrityError(f"there are samples of {sorted(unknown)[0]}, which the report does not have")
    settings = {each.digest: each for each in policy.spec.suite.probes}
    probes = tuple(_rescore_probe(result, settings, by_probe[result.probe]) for result in report.probes)
    return report.model_copy(update={"probes": probes})


def check_samples(report: EvalReport, samples: bytes) -> list[SampleRecord]:
    """The sample records, if they are those that the report names by digest and by Merkle root."""
    if report.samples is None or report.samples_root is None:
        raise IntegrityError(
            "the report does not name its samples and their Merkle root, so no sample can be shown to belong to it"
        )
    digest, lines = digest_bytes(samples), jsonl_lines(samples)
    root = merkle_root(lines)
    if digest != report.samples:
        raise IntegrityError(f"the samples have digest {digest}; the report names {report.samples}")
    if root != report.samples_root:
        raise IntegrityError(f"the samples have Merkle root {root}; the report names {report.samples_root}")
    try:
        return [SampleRecord.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise EvaluationError(f"the samples were written by another version of Tunegate: {error}") from error


def pairs_of(records: Sequence[SampleRecord]) -> tuple[Pair, ...]:
    """The pairs that a probe measured, as its records have them."""
    return pair_samples(
        [_sample(record, record.adapter) for record in records], [_sample(record, record.base) for record in records]
    )


def read_report(path: Path) -> EvalReport:
    """The report in a file of `tunegate evaluate --report`."""
    try:
        return EvalReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} is not a report: {error}", "report") from error


def read_samples(report_path: Path) -> bytes:
    """The samples beside a report."""
    path = samples_path(report_path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the samples of {report_path} are expected in {path}: {error}", "report") from error


def samples_path(report_path: Path) -> Path:
    """Where the samples of a report in a file lie."""
    return report_path.with_suffix(".samples.jsonl")


def _rescore_probe(
    result: ProbeResult, settings: Mapping[Digest, ProbeSettings], records: Sequence[SampleRecord]
) -> ProbeResult:
    fresh = () if result.error is not None else _measure(result, settings, records)
    if difference := next(_differences(_by_metric(result.measurements), _by_metric(fresh)), None):
        raise IntegrityError(f"{result.probe}: {difference}")
    if result.twin is not None and result.error is None and result.twin.gaps != _gaps(result, settings, records):
        raise IntegrityError(
            f"{result.probe}: the gap between public and secret prompts does not follow from its samples"
        )
    return result.model_copy(update={"measurements": fresh})


def _measure(
    result: ProbeResult, settings: Mapping[Digest, ProbeSettings], records: Sequence[SampleRecord]
) -> tuple[Measurement, ...]:
    chosen = settings.get(result.settings)
    if chosen is None or chosen.probe != result.probe:
        raise IntegrityError(f"{result.probe} ran with settings that are not in the policy's suite")
    probe = PROBES[type(chosen)]
    if probe.version != result.version:
        raise EvaluationError(
            f"{result.probe} was version {result.version} and is {probe.version} here, which may measure differently; "
            "re-score with the version of Tunegate that the report names"
        )
    try:
        return measured(probe, chosen, pairs_of(records), result.confidence)
    except EvaluationError as error:
        raise IntegrityError(
            f"{result.probe} has figures, but none can be computed from its samples: {error}"
        ) from error


def _gaps(
    result: ProbeResult, settings: Mapping[Digest, ProbeSettings], records: Sequence[SampleRecord]
) -> tuple[GapTest, ...]:
    chosen = settings[result.settings]
    return gaps(PROBES[type(chosen)], chosen, pairs_of(records))


def _sample(record: SampleRecord, outcome: SampleOutcome) -> Sample:
    return Sample(
        prompt_id=record.prompt_id,
        cluster=record.cluster,
        prompt=record.prompt,
        metric=record.metric,
        **{name: getattr(outcome, name) for name in SampleOutcome.model_fields},
    )


def _by_metric(measurements: Sequence[Measurement]) -> dict[str, JsonValue]:
    """Metric → figures; the second of one metric counts as another metric."""
    found: dict[str, JsonValue] = {}
    for measurement in measurements:
        name = measurement.metric
        while name in found:
            name += " (again)"
        found[name] = measurement.model_dump(mode="json")
    return found


def _differences(stored: JsonValue, fresh: JsonValue, path: str = "") -> Iterator[str]:
    """Every figure that differs, as `metric.figure is … in the report and … from its samples`."""
    if isinstance(stored, dict) and isinstance(fresh, dict):
        for name in dict.fromkeys((*stored, *fresh)):
            inner = f"{path}.{name}" if path else name
            yield from _differences(stored.get(name, _ABSENT), fresh.get(name, _ABSENT), inner)
    elif stored != fresh:
        yield f"{path} is {_shown(stored)} in the report and {_shown(fresh)} from its samples"


def _shown(value: JsonValue) -> JsonValue:
    return "present" if isinstance(value, dict) else value
