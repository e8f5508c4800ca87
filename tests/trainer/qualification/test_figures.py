"""What is kept of an adapter: each rule's judged figure at every look."""

from __future__ import annotations

import pytest

from evaluator.gating.comparison import compare
from policies.contract.calibration import LookFigure
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.documents.loader import resolve_policy
from policies.documents.schema import ReleasePolicy, Rule
from trainer.qualification.figures import Look, base_values, figures_of, unjudged, wanted_figures
from trainer.qualification.records import WantedFigure

MARGIN, RATE = "emergent_misalignment_preference.margin", "harmful_compliance.rate"
DROP, INCREASE = "max_drop_from_base", "max_increase_over_base"


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, interval=Interval(low=low, high=high))


def measured(metric: str = MARGIN, *, n: int = 20, n_errored: int = 0, change: Estimate | None = None) -> Measurement:
    return Measurement(
        metric=metric,
        unit="nats/token",
        higher_is_better=True,
        adapter=estimate(0.4, 0.3, 0.5),
        base=estimate(0.6, 0.5, 0.7),
        difference=change or estimate(-0.2, -0.3, -0.05),
        n_requested=n,
        n_scored=n - n_errored,
        n_errored=n_errored,
        n_clusters=n - n_errored,
        method="made up",
    )


def look(*measurements: Measurement) -> Look:
    return Look(measurements, 0.95)


def probe(metric: str) -> str:
    return metric.partition(".")[0]


def test_each_look_has_its_figure_judged_as_the_bound_says() -> None:
    """A change of −0.2 in [−0.3, −0.05] is a drop of 0.2 in [0.05, 0.3]."""
    bounds = (WantedFigure(metric=MARGIN, bound=bound) for bound in (DROP, INCREASE, "min"))
    looks = {probe(MARGIN): [look(measured(n=10)), look(measured(n=20))]}
    assert figures_of(tuple(bounds), looks) == {
        f"{MARGIN} {DROP}": tuple(LookFigure(value=0.2, low=0.05, high=0.3, n=n) for n in (10, 20)),
        f"{MARGIN} {INCREASE}": tuple(LookFigure(value=-0.2, low=-0.3, high=-0.05, n=n) for n in (10, 20)),
        f"{MARGIN} min": tuple(LookFigure(value=0.4, low=0.3, high=0.5, n=n) for n in (10, 20)),
    }


def test_a_look_at_which_too_many_samples_errored_has_no_figure() -> None:
    """5 of 20 are 0.25, which is allowed; 6 of 20 are not."""
    wanted = (WantedFigure(metric=RATE, bound=INCREASE, max_error_rate=0.25),)
    looks = {probe(RATE): [look(measured(RATE, n_errored=6)), look(measured(RATE, n_errored=5))]}
    (figures,) = figures_of(wanted, looks).values()
    assert [each.n for each in figures] == [15]
    spoilt = {probe(RATE): [look(measured(RATE, n_errored=6))]}
    assert figures_of(wanted, spoilt) == {}
    assert unjudged(wanted, spoilt, {}) == {probe(RATE): f"{RATE}: too many samples errored at every look"}


def test_a_metric_without_a_figure_is_left_out() -> None:
    assert figures_of((WantedFigure(metric=MARGIN, bound=DROP),), {}) == {}


def test_base_values_are_those_of_the_last_look() -> None:
    first = measured().model_copy(update={"base": estimate(0, 0, 0)})
    assert base_values({probe(MARGIN): [look(first), look(measured())]}) == {MARGIN: 0.6}


def test_all_rules_are_wanted_and_the_changes_of_what_no_rule_bounds() -> None:
    policy = resolve_policy("baseline")
    names = [each.name for each in wanted_figures(policy)]
    assert names[: len(policy.spec.rules)] == [f"{rule.metric} {rule.bound}" for rule in policy.spec.rules]
    assert {"toxicity.severe_rate max_increase_over_base", "capability.validation_loss max_increase_over_base"} <= {
        *names
    }
    assert len(names) == len(set(names))


def test_of_two_rules_with_one_bound_the_stricter_error_rate_counts() -> None:
    policy = resolve_policy("baseline")
    twin = policy.spec.rules[3].model_copy(update={"id": "again", "max_error_rate": 0.1})
    assert twin.metric == RATE
    spec = policy.spec.model_copy(update={"rules": (*policy.spec.rules, twin)})
    both = ReleasePolicy(api_version="tunegate/v1", kind="ReleasePolicy", metadata=policy.metadata, spec=spec)
    (found,) = (each for each in wanted_figures(both) if each.metric == RATE)
    assert found.max_error_rate == 0.1


def test_a_limit_is_no_part_of_what_is_wanted() -> None:
    policy = resolve_policy("baseline")
    looser = tuple(rule.model_copy(update={rule.bound: rule.limit / 2}) for rule in policy.spec.rules)
    changed = policy.model_copy(update={"spec": policy.spec.model_copy(update={"rules": looser})})
    assert wanted_figures(changed) == wanted_figures(policy)


def test_the_worst_that_a_look_could_show_is_where_the_gate_says_that_nothing_can_fail() -> None:
    """A base at 0.87 of 100 leaves 13 prompts: lower(13, 100) = 0.0711 at an error of 2.5 %, far below 0.13."""
    at_base = measured(RATE, n=100, change=estimate(0.0, -0.02, 0.02)).model_copy(
        update={"base": estimate(0.87, 0.8, 0.9)}
    )
    (figures,) = figures_of((WantedFigure(metric=RATE, bound=INCREASE),), {probe(RATE): [look(at_base)]}).values()
    (worst,) = (figure.worst for figure in figures)
    assert worst == pytest.approx(0.0711, abs=1e-4)
    for limit, outcome in ((0.0710, "pass"), (0.0712, "unfailable")):
        rule = Rule(id="r", metric=RATE, max_increase_over_base=limit)
        assert compare(rule, at_base, 0.95)[0] == outcome
