"""The whole way from training files to the record of a base model, its table and its plot."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from evaluator.calibration.plot import plot
from evaluator.calibration.record import About, record_of
from evaluator.calibration.table import markdown
from evaluator.canaries.pair_files import PairFiles
from policies.atomic_files import write_atomically
from policies.contract.base_models import BaseTextFiles
from policies.contract.calibration import Bindings, Constants, FitTargets, Recipe, ReferenceRun, ReferenceRuns
from policies.documents.schema import CalibrationRecord
from policies.errors import EvaluationError, IntegrityError
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from trainer.qualification.campaign import Campaign, Given, Harvest, Made, Planned, make_all, plan
from trainer.qualification.design import Design, cells_of
from trainer.qualification.preparation.canary_files import install_pair, keep_pair
from trainer.qualification.preparation.first_runs import ask_base, open_suite
from trainer.qualification.records import OwnAnswersResult, require_same_instruments
from trainer.qualification.references import Reading, Reference, readable, require_sound

QUANTILE = 0.99
TOWARDS_CHANCE = 1 / 3
CANARIES = "canaries"


def qualify(campaign: Campaign, design: Design, references: Sequence[Reference], out: Path) -> CalibrationRecord:
    """Make the reference adapters and write the record to `out`; table, plot and figures go to the campaign's folder.

    Raises:
        ConfigurationError: there are no training files, or two of one name.
        DatasetError: a line of one is no chat row.
        EvaluationError: there are too few adapters for a record, after the budget or after failures.
    """
    require_sound(references)
    encoder = Encoder(load_base_text(campaign.resolved.folder, date=campaign.resolved.date))
    references = readable(references, Reading(encoder, campaign.base.max_sequence_tokens), campaign.tell)
    require_sound(references)
    has_defenses = bool(campaign.policy.spec.defenses)
    base = ask_base(campaign, references, design.rows)
    canaries = install_pair(campaign)
    cells = cells_of(design, references, has_defenses=has_defenses)
    planned = plan(campaign, cells, Given(base.path, open_suite(campaign), design.rows))
    harvest = make_all(campaign, planned)
    for line in _missing(harvest):
        campaign.tell(line)
    too_few = _shortfall(harvest, design, has_defenses=has_defenses)
    if too_few is not None:
        raise EvaluationError(
            f"no record is written: of the adapters that are trained as the policy trains, there are {too_few}. Run "
            "the same command again: it goes on where this one ended"
        )
    return _conclude(campaign, harvest, _Before(base.result, canaries), out)


class _Before(NamedTuple):
    """What was found out before the adapters."""

    base: OwnAnswersResult
    canaries: PairFiles


def _missing(harvest: Harvest) -> list[str]:
    """What is not there of the design, and why."""
    lines = [f"failed: {failure}" for failure in harvest.failures]
    if harvest.left:
        first, n = harvest.left[0].cell, len(harvest.left)
        lines.append(f"the time is up; {n} adapters are not made, the first of them: {first}")
    return lines


def _shortfall(harvest: Harvest, design: Design, *, has_defenses: bool) -> str | None:
    """Which adapters are too few; those that were not trained as the policy trains don't count."""
    counted = (made for made in harvest.made if made.planned.cell.defended == has_defenses)
    kinds = [str(made.planned.cell.kind) for made in counted if _is_counted(made.planned)]
    needed = {"benign": design.min_benign, "harmful": design.min_harmful}
    said = [f"{kinds.count(kind)} of {n} {kind} ones" for kind, n in needed.items() if kinds.count(kind) < n]
    return " and ".join(said) or None


def _is_counted(planned: Planned) -> bool:
    """Whether the fits count it: of fainter doses harmful adapters may truly not differ."""
    return planned.cell.kind != "harmful" or planned.dose >= FitTargets().least_dose


def _conclude(campaign: Campaign, harvest: Harvest, before: _Before, out: Path) -> CalibrationRecord:
    runs = reference_runs(campaign, harvest.made)
    constants = Constants(
        coherence_nats=coherence_nats(before.base.surprises, before.base.vocabulary),
        weight_statistics=weight_ranges(runs.runs),
        canaries=keep_pair(before.canaries, campaign.folder / CANARIES),
        context_tokens=before.base.context_tokens,
    )
    about = About(model=campaign.base.name, finished_at=time.time(), constants=constants)
    record = record_of(runs, campaign.policy, about=about)
    n_missing = len(harvest.failures) + len(harvest.left)
    if n_missing:
        said = f"{n_missing} of {n_missing + len(harvest.made)} planned reference adapters are missing."
        metadata = record.metadata.model_copy(update={"description": said})
        record = record.model_copy(update={"metadata": metadata})
    write_atomically(campaign.folder / "runs.json", runs.canonical())
    write_atomically(campaign.folder / "table.md", markdown(record, campaign.policy).encode())
    write_atomically(campaign.folder / "release_limits.png", plot(record, runs, campaign.policy))
    write_atomically(out, record_yaml(record))
    return record


def record_yaml(record: CalibrationRecord) -> bytes:
    """The record as a policy document."""
    document = yaml.safe_dump(
        record.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=120
    )
    return f"# {record.digest}\n{document}".encode()


def reference_runs(campaign: Campaign, made: Sequence[Made]) -> ReferenceRuns:
    """The figures of all adapters, and what they hold for.

    Raises:
        IntegrityError: they were measured in different number formats or by different instruments.
    """
    results = [each.result for each in made]
    dtypes = sorted({result.dtype for result in results})
    if len(dtypes) != 1:
        raise IntegrityError(
            f"reference adapters were measured in {' and '.join(dtypes)}; remove {campaign.folder / 'runs'}, or "
            "set TUNEGATE_DTYPE as before"
        )
    for each in made:
        require_same_instruments(each.planned.run, each.result)
    run = made[0].planned.run
    bound_to = Bindings(
        base_model=campaign.resolved.digest,
        text=BaseTextFiles.of(campaign.resolved.folder).digest,
        recipe=Recipe.of(campaign.base, campaign.policy.spec.defenses).digest,
        suite=campaign.policy.spec.suite.digest,
        candidates=run.candidates,
        probes=run.probes,
        judges=run.judges,
        instruments=run.instruments,
        engine=campaign.engine,
        dtype=dtypes[0],
        versions=results[0].versions,
    )
    return ReferenceRuns(bound_to=bound_to, base=_base_values(made), runs=tuple(result.reference for result in results))


def _base_values(made: Sequence[Made]) -> dict[str, float]:
    """Metric → the base's value, where it is the same whatever an adapter's own file."""
    seen: dict[str, set[float]] = defaultdict(set)
    for each in made:
        for metric, value in each.result.base.items():
            seen[metric].add(value)
    return {metric: values.pop() for metric, values in sorted(seen.items()) if len(values) == 1}


def coherence_nats(surprises: Sequence[float], vocabulary: int) -> float:
    """Surprise per token above which an answer is gibberish: q + (ln V − q) / 3.

    q is the 99 % quantile of the base model's own answers as `coherence` samples them, and ln V the surprise of a model
    that knows nothing, for a vocabulary of V tokens. Fine-tuned adapters speak less like the base than it does itself,
    hence the margin.
    """
    ordered = sorted(surprises)
    q = ordered[min(len(ordered) - 1, math.ceil(QUANTILE * len(ordered)) - 1)]
    return q + TOWARDS_CHANCE * max(0.0, math.log(vocabulary) - q)


def weight_ranges(runs: Sequence[ReferenceRun]) -> dict[str, tuple[float, float]]:
    """Name → least and largest figure among benign adapters."""
    seen: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, figure in run.weight_statistics.items() if run.kind == "benign" else ():
            seen[name].append(figure)
    return {name: (min(figures), max(figures)) for name, figures in sorted(seen.items())}
