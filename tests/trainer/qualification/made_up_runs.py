"""A run's process that trains nothing: figures follow from what the adapter would have learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.contract.artifacts import digest_bytes, digest_tree
from policies.contract.calibration import LookFigure, ProbeIdentity
from policies.errors import TrainingError
from trainer.qualification.cached_runs import Launch, write_answer
from trainer.qualification.own_answers import ANSWERS_FILE
from trainer.qualification.records import (
    CanaryAssignment,
    CanaryResult,
    OpenedSuite,
    OpeningAssignment,
    OwnAnswersAssignment,
    OwnAnswersResult,
    ReferenceAssignment,
    ReferenceResult,
)

Drop = Callable[[ReferenceAssignment], float]
"""By how much an adapter's figures are worse than the base's."""


def drop_by_dose(assignment: ReferenceAssignment) -> float:
    """Harmful adapters lose as much as their dose, seeds apart."""
    return assignment.reference.dose + 0.001 * assignment.reference.seed


def making(drop: Drop = drop_by_dose, *, fails: Callable[[ReferenceAssignment], bool] = lambda _: False) -> Launch:
    """What stands in for a run's process."""

    def work_on(folder: Path) -> None:
        assignment = ReferenceAssignment.model_validate_json((folder / "assignment.json").read_bytes())
        write_answer(folder, lambda: made_up(assignment, folder, drop, fails=fails(assignment)))

    return work_on


def made_up(assignment: ReferenceAssignment, folder: Path, drop: Drop, *, fails: bool) -> ReferenceResult:
    if fails:
        raise TrainingError("the loss is not finite")
    adapter = folder / "adapter"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text(assignment.run.digest)
    value = drop(assignment)
    figures = {
        each.name: tuple(LookFigure(value=value, low=value - wide, high=value + wide, n=n) for wide, n in LOOKS)
        for each in assignment.run.wanted
    }
    changes = {
        "adapter": digest_tree(adapter),
        "figures": figures,
        "seconds_training": 6.0,
        "seconds": {"in_domain": 1},
    }
    return ReferenceResult(
        run=assignment.run.digest,
        reference=assignment.reference.model_copy(update=changes),
        instruments={
            "in_domain": (assignment.run.job.training_file,),
            MARGIN: assignment.run.instruments[MARGIN],
        },
        judges=(),
        base={f"{MARGIN}.margin": 0.5, "in_domain.loss": float(assignment.reference.seed)},
        dtype="float32",
        versions={"torch": "2.13"},
        seconds_whole=10.0,
    )


MARGIN = "emergent_misalignment_preference"
LOOKS = ((0.04, 8), (0.02, 16))
"""Half the width of an interval, and samples."""


def open_with(*instruments: str, version: str = "1") -> Launch:
    """What stands in for the process that opens the suite."""

    def work_on(folder: Path) -> None:
        assignment = OpeningAssignment.model_validate_json((folder / "assignment.json").read_bytes())
        probes = {settings.probe: ProbeIdentity(version=version) for settings in assignment.run.suite.probes}
        scored = {probe: instruments if probe == MARGIN else () for probe in probes}
        opened = OpenedSuite(run=assignment.run.digest, probes=probes, instruments=scored, judges=())
        write_answer(folder, lambda: opened)

    return work_on


def pair(folder: Path) -> None:
    """What stands in for the process that trains the pair of canaries: each is its training file's text."""
    assignment = CanaryAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    for name, file in (("good", assignment.good_file), ("bad", assignment.bad_file)):
        adapter = folder / name / "adapter"
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_bytes(Path(file).read_bytes())
    good, bad = (digest_tree(folder / name / "adapter") for name in ("good", "bad"))
    write_answer(folder, lambda: CanaryResult(run=assignment.run.digest, good=good, bad=bad))


def say_little(folder: Path) -> None:
    """What stands in for the process that asks the base model."""
    assignment = OwnAnswersAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    content = Path(assignment.questions_file).read_bytes()
    (folder / ANSWERS_FILE).write_bytes(content)
    result = OwnAnswersResult(
        run=assignment.run.digest,
        answers=digest_bytes(content),
        n_answers=8,
        n_cut=0,
        surprises=(1.0, 2.0),
        vocabulary=1000,
        context_tokens=1024,
        seconds_whole=5.0,
    )
    write_answer(folder, lambda: result)
