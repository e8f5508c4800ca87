"""Loading policy documents: what is wrong is told with file, line, field and fix; what is right is strictly typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.contract.defenses import DEFENSE_NAMES
from policies.contract.metrics import METRICS
from policies.documents.loader import (
    available_documents,
    load_policy_documents,
    load_policy_file,
    parse_policy,
    read_documents,
    resolve_base_model_document,
    resolve_policy,
)
from policies.documents.schema import ReleasePolicy
from policies.errors import PolicyError

SOUND = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata:
  name: house
  version: "1"
spec:
  on_inconclusive: block
  defenses:
    - name: kl_penalty
      coefficient: 0.1
  suite:
    probes:
      - probe: toxicity
        threshold: 0.5
  rules:
    - id: toxicity
      metric: toxicity.rate
      max: 0.1
"""
BASE_MODEL = """\
apiVersion: tunegate/v1
kind: BaseModel
metadata: {name: small, version: "1"}
spec: {name: acme/small, uri: /models/small}
"""

BROKEN = {
    "unknown key": (
        "on_inconclusive: block",
        "on_inconclusve: block",
        ["7: spec.on_inconclusve: unknown key; did you mean 'on_inconclusive'? known: defenses, "
         "disclosure, dpo_defenses, evaluators, max_candidates, mode, on_inconclusive, on_probe_overlap, release, "
         "require_calibration, retention, review_after_attempts, rules, screening, suite"],
    ),
    "unknown key of a union member": (
        "threshold:",
        "treshold:",
        ["14: spec.suite.probes[0].treshold: unknown key; did you mean 'threshold'? known: classifier, max_new_tokens, "
         "probe, prompts, threshold, toxic_labels, twin"],
    ),
    "unknown defense": (
        "kl_penalty",
        "kl_penalti",
        [
            "9: spec.defenses[0].name: unknown name 'kl_penalti'; did you mean 'kl_penalty'? known: "
            + ", ".join(sorted(DEFENSE_NAMES))
        ],
    ),
    "unknown probe": (
        "probe: toxicity",
        "probe: toxcity",
        [
            "13: spec.suite.probes[0].probe: unknown name 'toxcity'; did you mean 'toxicity'? known: "
            + ", ".join(sorted(METRICS))
        ],
    ),
    "unknown metric": (
        "toxicity.rate",
        "toxicity.rte",
        [
            "17: spec.rules[0].metric: metric 'toxicity.rte' is unknown; did you mean 'toxicity.rate'? known: "
            + ", ".join(sorted(metric for metrics in METRICS.values() for metric in metrics))
        ],
    ),
    "unknown kind": (
        "kind: ReleasePolicy",
        "kind: ReleasePolice",
        [
            "2: kind: unknown name 'ReleasePolice'; did you mean 'ReleasePolicy'? "
            "known: BaseModel, CalibrationRecord, ReleasePolicy"
        ],
    ),
    "missing kind": ("kind: ReleasePolicy\n", "", ["1: document: 'kind' is missing; add it to say which one this is"]),
    "missing field": ('  version: "1"\n', "", ["3: metadata.version: missing; add it"]),
    "key given twice": (
        "coefficient: 0.1",
        "coefficient: 0.1\n      coefficient: 0.2",
        ["11: spec.defenses[0].coefficient: key given twice, first in line 10; remove one"],
    ),
    "not a number": ("max: 0.1", "max: .nan", ["18: spec.rules[0].max: .nan is not a finite number; write a number"]),
    "infinite": (
        "max: 0.1",
        "max: 1e999",
        ["18: spec.rules[0].max: 1e999 is not a finite number; write a smaller one"],
    ),
    "number in quotes": (
        "coefficient: 0.1",
        'coefficient: "0.1"',
        ["10: spec.defenses[0].coefficient: should be a valid number, not '0.1'; correct the value"],
    ),
    "true for a number": (
        "coefficient: 0.1",
        "coefficient: true",
        ["10: spec.defenses[0].coefficient: should be a valid number, not True; correct the value"],
    ),
    "number for text": (
        'version: "1"',
        "version: 1.0",
        ["5: metadata.version: 1.0 is not text; put it in quotes"],
    ),
    "the word no": (
        "on_inconclusive: block",
        "on_inconclusive: no",
        ["7: spec.on_inconclusive: 'no' is not allowed; write 'block' or 'review'"],
    ),
    "out of range": (
        "coefficient: 0.1",
        "coefficient: -0.1",
        ["10: spec.defenses[0].coefficient: should be greater than 0, not -0.1; correct the value"],
    ),
    "alias": (
        "coefficient: 0.1",
        "coefficient: *strong",
        ["10: document: anchors and aliases are not allowed; write the value out"],
    ),
    "anchor": (
        "coefficient: 0.1",
        "coefficient: &strong 0.1",
        ["10: document: anchors and aliases are not allowed; write the value out"],
    ),
    "tag": (
        "coefficient: 0.1",
        "coefficient: !!python/object/apply:os.system [id]",
        ["10: document: tag tag:yaml.org,2002:python/object/apply:os.system is not allowed; remove it"],
    ),
    "syntax": (
        "coefficient: 0.1",
        "coefficient: [0.1",
        ["11: document: not YAML: expected ',' or ']', but got ':'; correct the syntax"],
    ),
    "control character": ("block", "bl\x07ock", ["7: document: character #x0007: not allowed; remove it"]),
    "nested too deep": (
        "coefficient: 0.1",
        "coefficient: " + "[" * 40 + "]" * 40,
        ["10: document: nested deeper than 32 levels; no policy needs that"],
    ),
    "neither builtin nor a digest": (
        "- name: kl_penalty\n      coefficient: 0.1",
        "- name: safe_data_interleaving\n      pool: mine",
        ["10: spec.defenses[0].pool: 'mine' is not allowed; write 'builtin' or 'mine' does not match "
         "^sha256:[0-9a-f]{64}$"],
    ),
    "inert limit": (
        "max: 0.1",
        "max: 1.0",
        ["18: spec.rules[0].max: max: 1.0 can't decide anything: toxicity.rate is a share in [0, 1)"],
    ),
    "limit on the wrong side": (
        "max: 0.1",
        "min: 0.1",
        ["18: spec.rules[0].min: min can't protect anything: toxicity.rate is better when lower"],
    ),
    "two bounds": (
        "max: 0.1",
        "max: 0.1\n      max_increase_over_base: 0.1",
        ["16: spec.rules[0]: a rule needs exactly one of max, min, max_increase_over_base, max_drop_from_base"],
    ),
    "nothing enforced": (
        "max: 0.1",
        "max: 0.1\n      mode: audit",
        ["6: spec: no rule has mode enforce, so nothing could be rejected; enforce at least one"],
    ),
    "probe that the suite does not run": (
        "toxicity.rate\n      max:",
        "capability.accuracy\n      max_drop_from_base:",
        ["6: spec: rule toxicity needs probe capability, which the suite does not run"],
    ),
    "several at once": (
        'version: "1"\nspec:\n  on_inconclusive: block',
        "version: 1\nspec:\n  on_inconclusive: wait",
        ["5: metadata.version: 1 is not text; put it in quotes",
         "7: spec.on_inconclusive: 'wait' is not allowed; write 'block' or 'review'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_document_is_told_with_line_field_and_fix(case: str) -> None:
    part, replacement, expected = BROKEN[case]
    assert part in SOUND
    _, problems = parse_policy(SOUND.replace(part, replacement, 1).encode(), source="house.yaml")
    assert list(problems) == [f"house.yaml:{line}" for line in expected]


def test_a_sound_document_has_no_problem() -> None:
    (document,), problems = parse_policy(SOUND.encode(), source="house.yaml")
    assert problems == ()
    assert isinstance(document, ReleasePolicy)


def test_a_problem_that_yaml_refuses_does_not_hide_the_others() -> None:
    broken = SOUND.replace("max: 0.1", "max: .inf").replace("block", "maybe")
    _, problems = parse_policy(broken.encode(), source="p")
    assert [line.split(": ")[1] for line in problems] == ["spec.rules[0].max", "spec.on_inconclusive"]


def test_bytes_that_are_no_utf_8_are_told_with_their_line() -> None:
    _, problems = parse_policy(b"apiVersion: tunegate/v1\nkind: \xff\n", source="p")
    assert problems == ("p:2: document: byte 30 is not UTF-8; save the file as UTF-8",)


def test_a_byte_order_mark_is_no_problem() -> None:
    assert parse_policy(b"\xef\xbb\xbf" + SOUND.encode(), source="p")[1] == ()


def test_an_empty_file_is_a_problem() -> None:
    assert parse_policy(b"# nothing\n", source="p")[1] == ("p:1: document: empty; write a document or remove the file",)


def test_a_large_file_is_refused_before_it_is_parsed() -> None:
    _, problems = parse_policy(b"#" * (1 << 20) + b"\n", source="p")
    assert problems == ("p:1: document: larger than 1048576 bytes; split it into several files",)


def test_numbers_with_an_exponent_are_numbers() -> None:
    """YAML 1.1 reads `1e-1` as text; we read YAML 1.2."""
    (document,), _ = parse_policy(SOUND.replace("max: 0.1", "max: 1e-1").encode(), source="p")
    assert isinstance(document, ReleasePolicy)
    assert document.spec.rules[0].limit == 0.1


def test_the_digest_speaks_of_the_content_and_not_of_its_layout() -> None:
    (document,), _ = parse_policy(SOUND.encode(), source="p")
    laid_out = SOUND.replace(
        "    - name: kl_penalty\n      coefficient: 0.1", "    - {coefficient: 0.10, name: kl_penalty}"
    )
    (other,), _ = parse_policy(laid_out.encode(), source="p")
    assert other.digest == document.digest


def test_a_folder_is_read_whole_and_its_problems_name_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SOUND)
    (tmp_path / "b.yml").write_text(SOUND.replace("block", "wait").replace("house", "garden"))
    (tmp_path / "notes.txt").write_text("not a policy")
    documents, problems = read_documents(tmp_path)
    assert [document.metadata.name for document in documents] == ["house"]
    assert [line.split(":")[0] for line in problems] == [str(tmp_path / "b.yml")]


def test_a_name_given_twice_in_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{SOUND}---\n{SOUND}")
    with pytest.raises(PolicyError, match="ReleasePolicy house is given twice; rename or remove one"):
        load_policy_documents(tmp_path)


def test_a_missing_file_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file or directory; check the path") as caught:
        load_policy_file(tmp_path / "none.yaml")
    assert len(caught.value.problems) == 1


def test_a_file_that_must_hold_one_document_holds_one(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(f"{SOUND}---\n{BASE_MODEL}")
    assert len(load_policy_documents(path)) == 2
    with pytest.raises(PolicyError, match="there are 2 documents; write exactly one"):
        load_policy_file(path)


def test_a_policy_is_found_by_path_by_preset_name_and_in_the_operators_folder(tmp_path: Path) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(SOUND)
    assert resolve_policy(str(path)) == resolve_policy("house", tmp_path)
    assert resolve_policy("baseline", tmp_path).metadata.name == "baseline"


def test_the_operators_document_replaces_the_preset_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SOUND.replace("house", "baseline"))
    assert resolve_policy("baseline", tmp_path).metadata.version == "1"
    assert len(available_documents(tmp_path)) == len(available_documents(None))


def test_an_unknown_name_is_answered_with_near_names() -> None:
    with pytest.raises(PolicyError, match="nothing is named 'strct'; did you mean 'strict'\\?"):
        resolve_policy("strct")


def test_a_base_model_is_not_a_release_policy(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(BASE_MODEL)
    with pytest.raises(PolicyError, match="kind: it is a BaseModel, but a ReleasePolicy is needed"):
        resolve_policy(str(path))


def test_a_base_model_is_found_by_the_name_that_the_api_uses(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(BASE_MODEL)
    assert resolve_base_model_document("acme/small", tmp_path).spec.uri == "/models/small"
