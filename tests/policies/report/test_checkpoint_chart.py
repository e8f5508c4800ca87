from __future__ import annotations

import math

import pytest

from policies.contract.evaluation import Estimate, EvalReport, Interval
from policies.documents.schema import ReleasePolicy
from policies.report.checkpoint_chart import Axis, CheckpointPoint, checkpoint_chart, checkpoint_charts

TOXICITY = Axis("toxicity", higher_is_better=False)
LOSS, ACCURACY = Axis("loss", higher_is_better=False), Axis("accuracy", higher_is_better=True)


def point(name: str, safety: float, capability: float, half: float = 0.01) -> CheckpointPoint:
    safety_figure, capability_figure = (
        Estimate(value=value, interval=Interval(low=value - half, high=value + half)) for value in (safety, capability)
    )
    return CheckpointPoint(name, safety_figure, capability_figure, "release")


def test_better_is_right_and_up_whatever_the_direction_of_the_metrics() -> None:
    """`good` is less toxic and has the lower loss; y grows downwards in SVG."""
    chart = checkpoint_chart([point("good", 0.0, -0.9), point("bad", 0.3, -0.1)], safety=TOXICITY, capability=LOSS)

    assert chart is not None
    good, bad = chart.dots
    assert good.x > bad.x
    assert good.y < bad.y


def test_an_axis_that_is_better_when_higher_is_not_turned() -> None:
    chart = checkpoint_chart([point("more", 0.0, 0.5), point("less", 0.0, 0.1)], safety=TOXICITY, capability=ACCURACY)

    assert chart is not None
    assert chart.dots[0].x > chart.dots[1].x


def test_the_base_and_the_limit_are_on_the_chart() -> None:
    chart = checkpoint_chart([point("a", 0.5, 0.5)], safety=TOXICITY, capability=ACCURACY, limit=0.1)

    assert chart is not None
    assert chart.limit is not None
    x, y = chart.origin
    assert x is not None
    assert chart.dots[0].y > chart.limit > y
    assert chart.dots[0].x > x


def test_without_points_there_is_no_chart() -> None:
    assert checkpoint_chart([], safety=TOXICITY, capability=LOSS) is None


def test_a_figure_that_is_not_finite_is_left_out() -> None:
    spoilt = point("nan", 0.0, 0.0)._replace(
        safety=Estimate.model_construct(value=math.nan, interval=Interval(low=0, high=1))
    )
    assert checkpoint_chart([spoilt], safety=TOXICITY, capability=LOSS) is None


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300])
def test_extreme_figures_can_be_drawn(value: float) -> None:
    chart = checkpoint_chart([point("a", value, value, half=0.0)], safety=TOXICITY, capability=LOSS)

    assert chart is not None
    assert all(map(math.isfinite, (chart.dots[0].x, chart.dots[0].y)))


def test_candidates_of_a_report_get_a_chart_for_each_enforced_safety_rule(
    report: EvalReport, policy: ReleasePolicy
) -> None:
    """Of the policy's three rules one is about capability, and misalignment was measured on no candidate."""
    charts = checkpoint_charts(report.candidates, policy)

    assert [chart.safety.label for chart in charts] == ["toxicity.rate, change in share of continuations"]
    assert [dot.point.name for dot in charts[0].dots] == ["step 60", "step 40", "step 20"]
    assert charts[0].limit is not None


def test_without_candidates_there_are_no_charts(policy: ReleasePolicy) -> None:
    assert checkpoint_charts((), policy) == ()


def test_checkpoints_stand_at_the_loss_that_training_measured(report: EvalReport, policy: ReleasePolicy) -> None:
    """A rejected candidate whose evaluation ended before capability was measured is on the chart all the same."""
    safety = "toxicity.rate"
    candidates = [
        each.model_copy(update={"valid_loss": 3.0 + place, "changes": {safety: each.changes[safety]}})
        for place, each in enumerate(report.candidates)
    ]
    (chart,) = checkpoint_charts(candidates, policy)

    assert chart.capability == Axis("validation loss in training, nats/token", higher_is_better=False)
    assert chart.origin[0] is None
    assert [dot.point.name for dot in chart.dots] == ["step 60", "step 40", "step 20"]
    assert chart.dots[0].x > chart.dots[1].x > chart.dots[2].x
    assert chart.missing == ()


def test_a_checkpoint_without_figures_is_named(report: EvalReport, policy: ReleasePolicy) -> None:
    first, *others = report.candidates
    (chart,) = checkpoint_charts([first.model_copy(update={"changes": {}, "valid_loss": None}), *others], policy)

    assert chart.missing == ("step 60",)
    assert [dot.point.name for dot in chart.dots] == ["step 40", "step 20"]
