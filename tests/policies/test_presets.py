"""The shipped documents load, are pinned, and say what their names promise."""

from __future__ import annotations

from policies.contract.defenses import strength
from policies.loader import load_presets, resolve_policy

PINNED = {
    "baseline": "sha256:162b7cabddd5096661c86ebdcd79fed0c3215bbe1ea5a942f71ab11436fc82cd",
    "smollm2-135m-instruct": "sha256:b083a3a4c9fcbf31bfcdea069c12e6986f019a642c0adf522fe9814e0b2191fe",
    "strict": "sha256:f58d92784f00a7b526f2eb1cc1e97c8f7c22afc465d64abe7bc30281778c4546",
}
"""A change of a preset is a change for every provider that uses it: update its digest here and its version there."""


def test_presets_are_the_pinned_documents() -> None:
    assert {document.metadata.name: document.digest for document in load_presets()} == PINNED


def test_strict_is_stricter_than_baseline_in_every_rule_and_defense() -> None:
    baseline, strict = resolve_policy("baseline").spec, resolve_policy("strict").spec
    assert [rule.id for rule in strict.rules] == [rule.id for rule in baseline.rules]
    assert all(s.bound == b.bound and s.limit < b.limit for s, b in zip(strict.rules, baseline.rules, strict=True))
    assert all(
        s.name == b.name and strength(s) > strength(b) for s, b in zip(strict.defenses, baseline.defenses, strict=True)
    )
    assert strict.on_inconclusive == "review"
