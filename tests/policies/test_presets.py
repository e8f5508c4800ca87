"""The shipped documents load, are pinned, and say what their names promise."""

from __future__ import annotations

from policies.contract.defenses import strength
from policies.loader import load_presets, resolve_policy

PINNED = {
    "baseline": "sha256:552f4d059a98b8238e6df974973e3c51b9896af0ab631f34a5165c0ac1b7165c",
    "smollm2-135m-instruct": "sha256:78cec271eaf688a33f6a2d3633b4e58cfebe8fa0dff5f633ad3b09a3331662bb",
    "strict": "sha256:f383f2dac1812a3d90fbf9de621a8c5c0e510042955099bdf07a1d60e80106ed",
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
