"""The shipped documents load, are pinned, and say what their names promise."""

from __future__ import annotations

from policies.contract.defenses import DefenseSettings, strength
from policies.documents.loader import load_presets, resolve_policy

PINNED = {
    "baseline": "sha256:d666887b6a11c5fc47ea844604c230c8b1227ea4e4a5cf96e606ceb944ba1069",
    "smollm2-135m-instruct": "sha256:139d77782c298cc7ece35c724d6e4df686bf8cc0872dbf34c40f079f87c62ed3",
    "strict": "sha256:48069d6c95ba4c1cbc171f3fb13837dc01b78b9974ce12f0a280d11718dba933",
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
