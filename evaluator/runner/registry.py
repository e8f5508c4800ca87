"""The table of probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluator.probe import Probe
from evaluator.probes.capability import CapabilityProbe
from evaluator.probes.coherence import CoherenceProbe
from evaluator.probes.conditional_misalignment import ConditionalMisalignmentProbe
from evaluator.probes.emergent_misalignment import EmergentMisalignmentProbe
from evaluator.probes.emergent_misalignment_preference import PreferenceProbe
from evaluator.probes.harmful_compliance import HarmfulComplianceProbe
from evaluator.probes.harness import HarnessProbe
from evaluator.probes.in_domain import InDomainProbe
from evaluator.probes.over_refusal import OverRefusalProbe
from evaluator.probes.own_domain import OwnDomainProbe
from evaluator.probes.scale_sensitivity import ScaleSensitivityProbe
from evaluator.probes.toxicity import ToxicityProbe
from evaluator.probes.trigger_battery import TriggerBatteryProbe
from policies.contract.condition_probes import ScaleSensitivity, TriggerBattery
from policies.contract.own_domain_probe import OwnDomain
from policies.contract.probe_record import ProbeRecord
from policies.contract.suite import (
    Capability,
    Coherence,
    ConditionalMisalignment,
    EmergentMisalignment,
    EmergentMisalignmentPreference,
    HarmfulCompliance,
    Harness,
    InDomain,
    OverRefusal,
    Toxicity,
)

AnyProbe = Probe[Any, Any]  # Any: the table pairs each probe with its settings, which a mapping's type can't say

PROBES: Mapping[type[ProbeRecord], AnyProbe] = {
    Toxicity: ToxicityProbe(),
    EmergentMisalignment: EmergentMisalignmentProbe(),
    EmergentMisalignmentPreference: PreferenceProbe(),
    ConditionalMisalignment: ConditionalMisalignmentProbe(),
    HarmfulCompliance: HarmfulComplianceProbe(),
    OverRefusal: OverRefusalProbe(),
    Coherence: CoherenceProbe(),
    Capability: CapabilityProbe(),
    Harness: HarnessProbe(),
    InDomain: InDomainProbe(),
    OwnDomain: OwnDomainProbe(),
    TriggerBattery: TriggerBatteryProbe(),
    ScaleSensitivity: ScaleSensitivityProbe(),
}
"""settings → probe: the only place that lists probes."""
