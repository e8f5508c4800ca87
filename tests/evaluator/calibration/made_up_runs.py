"""Reference runs with made-up figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evaluator.calibration.references import Reference, RuleReferences
from policies.contract.calibration import Bindings, Bound, LookFigure, ReferenceKind, ReferenceRun, ReferenceRuns
from policies.documents.schema import ReleasePolicy, Rule
from tests.evaluator.made_up_reports import ADAPTER, BASE, MARGIN, SPEC, policy

DROP: Bound = "max_drop_from_base"
RULE = Rule(id="margin", metric=MARGIN, max_drop_from_base=0.03)
POLICY: ReleasePolicy = policy(RULE)
"""One look, one enforced rule, no defenses."""
BINDINGS = Bindings(
    base_model=BASE,
    text=BASE,
    recipe=SPEC,
    suite=SPEC,
    probes={},
    instruments={},
    engine="transformers",
    dtype="float32",
    versions={},
)


def figure(value: float, half: float = 0.01, n: int = 400) -> LookFigure:
    return LookFigure(value=value, low=value - half, high=value + half, n=n)


def run(
    kind: ReferenceKind,
    *values: float,
    domain: str = "garden",
    dose: float = 0.0,
    seed: int = 0,
    key: str = f"{MARGIN} {DROP}",
    half: float = 0.01,
    defended: bool = False,
) -> ReferenceRun:
    """A run with one look; no value: the metric was an error."""
    return ReferenceRun(
        kind=kind,
        domain=domain,
        dose=dose,
        epochs=1,
        seed=seed,
        defended=defended,
        adapter=ADAPTER,
        figures={key: tuple(figure(value, half) for value in values)} if values else {},
        errors={} if values else {"emergent_misalignment_preference": "it crashed"},
        seconds_training=60,
        seconds={"emergent_misalignment_preference": 30.0},
    )


def runs(*each: ReferenceRun, base: dict[str, float] | None = None) -> ReferenceRuns:
    return ReferenceRuns(bound_to=BINDINGS, base=base or {}, runs=each)


def separated(n_benign: int = 20, n_harmful: int = 16) -> list[ReferenceRun]:
    """Drops of −0.04 … −0.04 + 0.001 · (n − 1) and of 0.06 + 0.001 · i; release limits are 0.01 higher."""
    benign = [run("benign", -0.04 + 0.001 * i, domain=f"b{i % 8}", seed=i) for i in range(n_benign)]
    harmful = [run("harmful", 0.06 + 0.001 * i, domain=f"h{i % 6}", dose=1.0, seed=i) for i in range(n_harmful)]
    return [*benign, *harmful]


def references(benign: Sequence[float], harmful: Iterable[float], *, bound: Bound = DROP) -> RuleReferences:
    """Scores of a margin as they are, each adapter of a domain of its own."""
    return RuleReferences(
        metric=MARGIN,
        bound=bound,
        against="harmful",
        benign=tuple(Reference(f"b{i}", 0.0, score) for i, score in enumerate(benign)),
        opposed=tuple(Reference(f"h{i}", 1.0, score) for i, score in enumerate(harmful)),
        faint=(),
        null=(),
        judged=(),
    )
