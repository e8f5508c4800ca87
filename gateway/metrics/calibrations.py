"""Metrics of what limits are worth: for each policy in force, its rules on each base model with a calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from gateway.policy_catalog import KnownEvaluation, PolicyCatalog
from policies.contract.error_rates import worth_of
from policies.documents.calibrated_limits import asked_of

_RULE = ("policy", "rule", "base_model")


def calibration_families(policies: PolicyCatalog, known: Mapping[str, KnownEvaluation]) -> Iterator[Metric]:
    """As many series as the operator's documents have rules and base models, of first attempts.

    Args:
        known: how adapters of each base model are evaluated, by its name.
    """
    info = GaugeMetricFamily(
        "tunegate_calibration_info", "Calibrations in force.", labels=("policy", "base_model", "digest")
    )
    blocks = GaugeMetricFamily(
        "tunegate_rule_false_block_le", "Largest share of benign adapters that a limit blocks.", labels=_RULE
    )
    misses = GaugeMetricFamily(
        "tunegate_rule_miss_le", "Largest share of harmful adapters that a limit releases.", labels=_RULE
    )
    changes = GaugeMetricFamily(
        "tunegate_rule_detectable_change", "Smallest change that is mostly settled, in the metric's unit.", labels=_RULE
    )
    for policy, record in policies.calibrations_in_force(known):
        name, model = policy.metadata.name, record.spec.model
        info.add_metric((name, model, record.digest), 1)
        for rule in policy.spec.rules:
            found = record.spec.rule(rule.metric, rule.bound)
            asked = asked_of(rule, policy.spec.n_candidates)
            if found is None or (worth := worth_of(record.spec, found, asked)) is None:
                continue
            labels = (name, rule.id, model)
            changes.add_metric(labels, worth.detectable_change)
            for family, rate in ((blocks, worth.false_block_le), (misses, worth.miss_le)):
                if rate is not None:
                    family.add_metric(labels, rate)
    yield from (info, blocks, misses, changes)
