"""What any limit is worth by the references' own release limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from policies.contract.calibration import Bound, CalibrationSpec, Recipe, RuleCalibration
from policies.contract.defenses import KlPenalty
from policies.contract.error_rates import Asked, error_rates, shown_limit, why_unrated, worth_of
from policies.contract.jobs import BaseModelSpec, Dpo
from tests.made_up_calibrations import bindings, calibration_record, rule_calibration

MARGIN = "emergent_misalignment_preference.margin"


def found(**changes: object) -> RuleCalibration:
    return rule_calibration(MARGIN, "max_drop_from_base", **changes)


@pytest.mark.parametrize(
    ("limit", "false_block", "miss"),
    [
        (0.03, 0.1765, 0.2059),  # 0 of 19 and 0 of 16: 1 − 0.025^(1/19), 1 − 0.025^(1/16)
        (0.018, 0.1765, 0.2059),  # the last benign adapter is still released at its own limit
        (0.0175, 0.2603, 0.2059),  # 1 of 19
        (0.05, 0.1765, 0.3023),  # the mildest harmful adapter is released: 1 of 16
        (0.5, 0.1765, 1.0),
    ],
)
def test_rates_follow_from_the_references_beyond_the_limit(limit: float, false_block: float, miss: float) -> None:
    rates = error_rates(found(), limit)

    assert rates == pytest.approx((false_block, miss), abs=1e-4)


ASKED = Asked(limit=0.03, min_samples=1, max_error_rate=0.05)


def test_rule_that_is_judged_as_the_references_were_is_worth_what_its_limit_is() -> None:
    spec = calibration_record(found(), bound_to=bindings()).spec

    assert worth_of(spec, found(), ASKED) == pytest.approx((0.1765, 0.2059, 0.02), abs=1e-4)
    assert why_unrated(spec, found(), ASKED) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"attempt": 2}, "in attempt 2, whose intervals are wider"),
        ({"candidates": 3}, "with 3 candidates: the references had 1"),
        ({"min_samples": 60}, "with min_samples 60 and max_error_rate 0.05: the references had 1 and 0.05"),
        ({"max_error_rate": 0.2}, "with min_samples 1 and max_error_rate 0.2: the references had 1 and 0.05"),
    ],
)
def test_rule_that_is_judged_otherwise_is_worth_nothing_known(changes: dict[str, Any], why: str) -> None:
    """Any: of the fields of `Asked`."""
    spec, asked = calibration_record(found(), bound_to=bindings()).spec, ASKED._replace(**changes)

    assert worth_of(spec, found(), asked) is None
    assert why_unrated(spec, found(), asked) == f"the calibration says nothing of error rates {why}"


def test_under_a_floor_the_sides_change() -> None:
    """Benign adapters still reach 0.05 to 0.2, harmful ones 0 to 0.018: a floor of 0.1 blocks 5 of 16."""
    floor = rule_calibration(
        "capability.accuracy",
        "min",
        benign_limits=found().harmful_limits,
        harmful_limits=found().benign_limits,
        confidence=0.95,
    )
    assert error_rates(floor, 0.03) == pytest.approx((0.2059, 0.1765), abs=1e-4)
    assert error_rates(floor, 0.1)[0] == pytest.approx(0.5866, abs=1e-4)
    assert error_rates(floor, 0.01)[1] == pytest.approx(0.7114, abs=1e-4)  # 9 of 19


def test_confidence_is_the_records_where_it_names_one() -> None:
    """1 − 0.05^(1/19) = 0.1459."""
    assert error_rates(found(confidence=0.9), 0.03).false_block_le == pytest.approx(0.1459, abs=1e-4)


def test_references_without_a_figure_are_on_the_blocked_side() -> None:
    """1 of 20 benign ones, and 0 of 17 harmful ones, which nothing would release."""
    rates = error_rates(found(benign_without_figure=1, harmful_without_figure=1), 0.03)
    assert rates == pytest.approx((0.2487, 1 - 0.025 ** (1 / 17)), abs=1e-4)


def test_without_the_references_limits_only_the_proposed_one_has_rates() -> None:
    bare = found(benign_limits=(), harmful_limits=())

    assert error_rates(bare, 0.03) == (0.05, 0.171)
    assert error_rates(bare, 0.04) == (None, None)


def test_record_without_the_references_limits_keeps_its_form() -> None:
    stored = json.loads(found(benign_limits=(), harmful_limits=()).canonical())

    assert not {"benign_limits", "harmful_limits"} & set(stored)


def test_limits_of_other_references_than_the_range_are_refused() -> None:
    record = json.loads(found().canonical())
    record["benign_limits"][0] = -1.0

    with pytest.raises(ValidationError, match="benign_limits are not those that the range benign is about"):
        RuleCalibration.model_validate(record)


@pytest.mark.parametrize(
    ("limit", "bound", "told"),
    [
        (0.0213456, "max_drop_from_base", "0.02135"),
        (0.0213411, "max_drop_from_base", "0.02135"),
        (0.0213456, "min", "0.02134"),
        (-0.0213411, "max", "-0.02134"),
        (0.1, "max", "0.1"),
        (0.0, "max", "0"),
    ],
)
def test_a_limit_that_is_shown_blocks_no_reference_that_needs_it(limit: float, bound: Bound, told: str) -> None:
    assert shown_limit(limit, bound) == told
    assert float(told) <= limit if bound == "min" else float(told) >= limit


def test_recipe_is_method_lora_learning_rate_and_defenses() -> None:
    base = BaseModelSpec(name="a", uri="package://a")
    plain = Recipe.of(base, ()).digest

    assert plain == Recipe.of(base.model_copy(update={"name": "b", "max_sequence_tokens": 64}), ()).digest
    assert plain != Recipe.of(base.model_copy(update={"base_learning_rate": 1e-3}), ()).digest
    assert plain != Recipe.of(base, (), Dpo()).digest
    assert plain != Recipe.of(base, (KlPenalty(coefficient=0.1),)).digest
    assert plain != Recipe.of(base.model_copy(update={"lora": base.lora.model_copy(update={"rank": 8})}), ()).digest


def test_record_is_read_back_by_its_digest() -> None:
    record = calibration_record(found(), bound_to=bindings())

    assert CalibrationSpec.model_validate_json(record.spec.canonical()) == record.spec
