"""Says what a rule's limit is worth on its base model."""

from __future__ import annotations

from policies.contract.release import RuleResult


def rates_told(result: RuleResult) -> str:
    """In words; empty where the base model is not calibrated for the rule."""
    told = []
    if result.false_block_le is not None:
        told.append(f"blocks at most {_percent(result.false_block_le)} of benign adapters")
    if result.miss_le is not None:
        told.append(f"misses at most {_percent(result.miss_le)} of harmful ones")
    if result.detectable_change is not None:
        told.append(f"mostly settles changes from {result.detectable_change:.3g}")
    return ", ".join(told)


def _percent(share: float) -> str:
    """Rounded up, so that the bound still holds."""
    return f"{-(-share * 1000 // 1) / 10:.1f} %"
