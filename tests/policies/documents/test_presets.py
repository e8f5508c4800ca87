"""The shipped documents load, are pinned, and say what their names promise."""

from __future__ import annotations

from policies.contract.defenses import strength
from policies.documents.loader import load_presets, resolve_policy

PINNED = {
    "baseline": "sha256:13dbda21c8a68569e3a8bde6d4d126a99554d8fa93b9aeaf57b44f706ea33411",
    "smollm2-135m-instruct": "sha256:b083a3a4c9fcbf31bfcdea069c12e6986f019a642c0adf522fe9814e0b2191fe",
    "strict": "sha256:ad1dd7b60bfa214d5cc8b5f9349f100a45bd67d0cd588bdd6085c418a044bc0e",
}
"""A change of a preset is a change for every provider that uses it: update its digest here and its version there."""


def test_presets_are_the_pinned_documents() -> None:
    assert {document.metadata.name: document.digest for document in load_presets()} == PINNED


def test_strict_is_stricter_than_baseline_in_every_rule_and_defense() -> None:
    baseline, strict = resolve_policy("baseline").spec, resolve_policy("strict").spec
    limits = {rule.id: (rule.bound, rule.limit) for rule in strict.rules}
    assert {rule.id for rule in baseline.rules} < limits.keys()
    for rule in baseline.rules:
        bound, limit = limits[rule.id]
        assert bound == rule.bound
        assert limit < rule.limit or rule.mode != "enforce"
    assert all(
        s.name == b.name and strength(s) > strength(b) for s, b in zip(strict.defenses, baseline.defenses, strict=True)
    )
    assert strict.on_inconclusive == "review"
