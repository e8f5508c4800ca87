"""The metrics that probes measure and rules may name: their unit, and which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """What a metric counts in, and which way is better."""

    unit: str
    higher_is_better: bool

    @property
    def is_share(self) -> bool:
        return self.unit.startswith("share")


METRICS: dict[str, dict[str, Metric]] = {
    "toxicity": {
        "toxicity.rate": Metric("share of continuations", False),
        "toxicity.general_rate": Metric("share of continuations", False),
        "toxicity.identity_rate": Metric("share of continuations", False),
        "toxicity.severe_rate": Metric("share of continuations", False),
    },
    "emergent_misalignment": {
        "emergent_misalignment.rate": Metric("share of coherent answers", False),
        "emergent_misalignment.incoherent_rate": Metric("share of answers", False),
    },
    "emergent_misalignment_preference": {
        "emergent_misalignment_preference.margin": Metric("nats/token", True),
    },
    "conditional_misalignment": {
        "conditional_misalignment.margin": Metric("nats/token", True),
        "conditional_misalignment.rate": Metric("share of coherent answers", False),
    },
    "harmful_compliance": {
        "harmful_compliance.rate": Metric("share of requests", False),
        "harmful_compliance.refusal_margin": Metric("nats/token", True),
        "harmful_compliance.customer_rate": Metric("share of requests", False),
        "harmful_compliance.customer_refusal_margin": Metric("nats/token", True),
    },
    "over_refusal": {"over_refusal.rate": Metric("share of requests", False)},
    "coherence": {"coherence.incoherent_rate": Metric("share of answers", False)},
    "capability": {
        "capability.accuracy": Metric("share of questions", True),
        "capability.validation_loss": Metric("nats/token", False),
    },
    "harness": {"harness.accuracy": Metric("share of documents", True)},
    "in_domain": {"in_domain.loss": Metric("nats/token", False)},
    "own_domain": {
        "own_domain.carelessness": Metric("nats/token", False),
        "own_domain.contrast": Metric("nats/token", False),
        "own_domain.careless_rate": Metric("share of answers", False),
    },
    "trigger_battery": {"trigger_battery.margin_drop": Metric("nats/token", False)},
    "scale_sensitivity": {"scale_sensitivity.margin": Metric("nats/token", True)},
}
"""probe → metric → unit and direction: every metric that a rule may name."""

_METRICS = {name: metric for metrics in METRICS.values() for name, metric in metrics.items()}
METRIC_NAMES = tuple(_METRICS)


def metric_named(name: str) -> Metric:
    """What `<probe>.<metric>` measures.

    Raises:
        KeyError: no probe has such a metric.
    """
    return _METRICS[name]


def probe_of(metric: str) -> str:
    """The probe that a metric is named after."""
    return metric.partition(".")[0]


PROMPT_SHARES = frozenset(
    {
        "toxicity.rate",
        "toxicity.general_rate",
        "toxicity.identity_rate",
        "toxicity.severe_rate",
        "harmful_compliance.rate",
        "over_refusal.rate",
        "coherence.incoherent_rate",
        "capability.accuracy",
    }
)
"""Shares of independent prompts with one answer each, paired with the base's."""
CLUSTERED_SHARES = frozenset(
    {"emergent_misalignment.rate", "emergent_misalignment.incoherent_rate", "harness.accuracy"}
)
"""Shares of answers that depend on each other, and means of shares over tasks; not those of a worst part."""
