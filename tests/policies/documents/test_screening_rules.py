"""`spec.screening` of a release policy."""

from __future__ import annotations

import json

import pytest

from policies.documents.loader import parse_policy, resolve_policy
from policies.documents.schema import ReleasePolicy

Rules = list[dict[str, object]]


def parsed(screening: Rules | None) -> tuple[ReleasePolicy | None, tuple[str, ...]]:
    """`baseline` with these rules, or without the key, and what is wrong with it."""
    document = resolve_policy("baseline").model_dump(mode="json", by_alias=True, exclude_none=True)
    if screening is not None:
        document["spec"]["screening"] = screening
    documents, problems = parse_policy(json.dumps(document, indent=1).encode(), source="own.yaml")
    (policy,) = documents or (None,)
    assert policy is None or isinstance(policy, ReleasePolicy)
    return policy, problems


def test_policies_without_screening_keep_their_digest() -> None:
    baseline = resolve_policy("baseline")
    assert b"screening" not in baseline.canonical()
    nothing: list[Rules | None] = [None, []]
    for screening in nothing:
        policy, _ = parsed(screening)
        assert policy is not None
        assert policy.digest == baseline.digest


def test_screening_is_part_of_the_digest() -> None:
    policy, _ = parsed([{"screen": "secrets", "action": "block"}])
    assert policy is not None
    assert policy.digest != resolve_policy("baseline").digest
    assert ReleasePolicy.model_validate_json(policy.canonical()) == policy


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ([{"screen": "secret", "action": "block"}], "spec.screening"),
        ([{"screen": "secrets", "action": "block", "max_share_of_rows": 0.1}], "max_share_of_rows"),
        ([{"screen": "secrets"}], "action"),
        ([{"screen": "pii", "action": "block"}, {"screen": "pii", "action": "warn"}], "listed twice"),
    ],
)
def test_what_no_screen_can_do_is_an_error_with_its_place(rules: Rules, named: str) -> None:
    policy, problems = parsed(rules)
    assert policy is None
    assert named in "\n".join(problems)


def test_refused_files_are_another_screen_than_the_file_itself() -> None:
    screens: Rules = [
        {"screen": "near_duplicates", "action": "warn"},
        {"screen": "near_duplicates", "of": "refused_files", "action": "review", "max_share": 0.5},
    ]
    policy, _ = parsed(screens)
    assert policy is not None
    assert [rule.name for rule in policy.spec.screening] == ["near_duplicates", "near_duplicates.refused_files"]
