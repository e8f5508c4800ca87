"""The shipped documents load, are pinned, and say what their names promise."""

from __future__ import annotations

from policies.contract.defenses import DefenseSettings, strength
from policies.documents.loader import load_presets, resolve_policy

PINNED = {
    "baseline": "sha256:6c474b341cfc9be25c6fcaed99940f5f88ea42139a45c93d2143256b3acd4bc8",
    "smollm2-135m-instruct": "sha256:139d77782c298cc7ece35c724d6e4df686bf8cc0872dbf34c40f079f87c62ed3",
    "strict": "sha256:0c2f11087cd31d6ef2173cbf0d057afb76d52f90ffc109d70414ba8b4a0e7705",
}
"""A change of a preset is a change for every provider that uses it: update its digest here and its version there."""


def test_presets_are_the_pinned_documents() -> None:
    assert {document.metadata.name: document.digest for document in load_presets()} == PINNED


def degree(settings: DefenseSettings) -> float:
    found = strength(settings)
    assert found is not None
    return found


def test_strict_is_stricter_than_baseline_in_every_rule_and_defense() -> None:
    baseline, strict = resolve_policy("baseline").spec, resolve_policy("strict").spec
    limits = {rule.id: (rule.bound, rule.limit) for rule in strict.rules}
    assert {rule.id for rule in baseline.rules} < limits.keys()
    for rule in baseline.rules:
        bound, limit = limits[rule.id]
        assert bound == rule.bound
        assert limit < rule.limit or rule.mode != "enforce"
    for ours, theirs in zip(strict.defenses, baseline.defenses, strict=True):
        assert ours.name == theirs.name
        assert degree(ours) > degree(theirs)
    assert strict.on_inconclusive == "review"
