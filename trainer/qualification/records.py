"""What the runs of a qualification are told and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.calibration import Bound, ProbeIdentity, ReferenceRun
from policies.contract.evaluation import Engine
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy
from policies.errors import IntegrityError
from trainer.qualification.cached_runs import Outcome
from trainer.qualification.design import Making

CODE_VERSION = 1
"""Raised when the same run would come to other figures, so that old ones are not taken for new."""
LIBRARIES = ("torch", "transformers", "peft", "vllm", "tunegate")


def versions() -> dict[str, str]:
    """Of what figures depend on and is installed here."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return minor_versions(found)


def minor_versions(full: Mapping[str, str]) -> dict[str, str]:
    """Library → `major.minor`."""
    return {name: ".".join(full[name].split(".")[:2]) for name in LIBRARIES if name in full}


class WantedFigure(Record):
    """A figure, judged as a rule with this bound would, and when such a rule decides."""

    metric: str
    bound: Bound
    max_error_rate: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.metric} {self.bound}"


class QualificationRun(Record):
    """All that the figures of a reference adapter depend on; not on the limits of a policy."""

    job: JobSpec
    base_model: Digest
    making: Making
    wanted: tuple[WantedFigure, ...]
    candidates: int
    """How many adapters of a job may come to be released, which widens intervals."""
    engine: Engine
    versions: dict[str, str]
    probes: dict[str, ProbeIdentity]
    instruments: dict[str, tuple[str, ...]]
    """Probe → identities of what scores all adapters: classifiers, judges, canaries."""
    judges: tuple[Digest, ...]
    code_version: int = CODE_VERSION


class ReferenceAssignment(Record):
    """What a run's process reads in its folder."""

    run: QualificationRun
    reference: ReferenceRun
    """Without adapter and figures, which the run finds."""
    policy: ReleasePolicy
    training_file: str
    cache_dir: str
    store_url: str | None
    parent_pid: int


class ReferenceResult(Outcome):
    """A reference adapter with its figures, and what scored them."""

    reference: ReferenceRun
    instruments: dict[str, tuple[str, ...]]
    """Probe → identities of what scored it, files of the run among them."""
    judges: tuple[Digest, ...]
    base: dict[str, float]
    """Metric → the base model's own value."""
    dtype: str
    versions: dict[str, str]
    """`major.minor` of those libraries that the report names."""
    seconds_whole: float = Field(ge=0)
    """Of the run's process."""


def require_same_instruments(run: QualificationRun, result: ReferenceResult) -> None:
    """Refuse figures that something else scored than the run is about. More instruments come of the run's own files.

    Raises:
        IntegrityError: with the probe that was scored by something else.
    """
    changed = [
        probe
        for probe, instruments in result.instruments.items()
        if probe not in run.instruments or not set(run.instruments[probe]) <= set(instruments)
    ]
    if changed or result.judges != run.judges:
        what = f"what scores {changed[0]}" if changed else "the panel of judges"
        raise IntegrityError(
            f"{what} is not what it was when the suite was opened; remove the run {run.digest[7:23]} if it is there, "
            "and start again"
        )


class OpeningRun(Record):
    """Whose suite is opened on which base model."""

    base: BaseModelSpec
    base_model: Digest
    suite: EvalSuite


class OpeningAssignment(Record):
    """What the process reads that opens a suite."""

    run: OpeningRun
    cache_dir: str
    store_url: str | None
    parent_pid: int


class OpenedSuite(Outcome):
    """What all adapters are measured with."""

    probes: dict[str, ProbeIdentity]
    instruments: dict[str, tuple[str, ...]]
    judges: tuple[Digest, ...]


class CanaryRun(Record):
    """All that the pair of canaries depends on: what they learn, and nothing of a policy."""

    base_model: Digest
    good: JobSpec
    bad: JobSpec
    versions: dict[str, str]
    code_version: int = CODE_VERSION


class CanaryAssignment(Record):
    """What the process reads that trains the pair."""

    run: CanaryRun
    good_file: str
    bad_file: str
    cache_dir: str
    parent_pid: int


class CanaryResult(Outcome):
    """The pair, whose adapters lie beside this."""

    good: Digest
    bad: Digest


class OwnAnswersRun(Record):
    """All that the base model's own answers depend on."""

    base: BaseModelSpec
    base_model: Digest
    questions: Digest
    max_new_tokens: int
    versions: dict[str, str]
    code_version: int = CODE_VERSION


class OwnAnswersAssignment(Record):
    """What the process reads that asks the base model."""

    run: OwnAnswersRun
    questions_file: str
    cache_dir: str
    parent_pid: int


class OwnAnswersResult(Outcome):
    """What the base model is like by itself; its greedy answers lie beside this in `own_answers.jsonl`."""

    answers: Digest
    n_answers: int = Field(ge=1)
    n_cut: int = Field(ge=0)
    """Of them, that were not finished within `max_new_tokens`."""
    surprises: tuple[float, ...] = Field(min_length=1)
    """Of answers sampled as the probe `coherence` does by default, nats per token under the base model itself."""
    vocabulary: int = Field(ge=2)
    context_tokens: int | None
    seconds_whole: float = Field(ge=0)
