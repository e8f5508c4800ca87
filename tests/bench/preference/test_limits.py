"""How scores tell adapters apart and what limits decide: by hand, as the gate does, on unseen domains."""

from __future__ import annotations

import math

import pytest
import torch

from bench.preference.activation_shift import shift
from bench.preference.limits import Counts, Scored, choose_limit, count, leave_one_domain_out, roc, separation, verdict
from bench.preference.reading import Reading
from policies.contract.evaluation import Estimate, Interval
from policies.errors import EvaluationError


def scored(domain: str, kind: str, value: float, half: float = 0.1) -> Scored:
    assert kind in ("harmful", "benign")
    interval = Interval(low=value - half, high=value + half)
    return Scored(domain, kind, Estimate(value=value, interval=interval))  # type: ignore[arg-type]  # asserted


def test_separation_is_the_distance_of_means_in_root_mean_variances() -> None:
    """Means 4 and 1, variances 2 (of 3, 5) and 8 (of −1, 3): 3 / √5."""
    assert separation([3, 5], [-1, 3]) == pytest.approx(3 / math.sqrt(5))
    assert separation([1, 1], [0, 0]) is None
    assert separation([1], [0, 2]) is None


def test_roc_goes_from_nothing_called_harmful_to_everything() -> None:
    """Harmful 3 and 1, benign 2: at 3 a half of the harmful, at 2 the benign one too, at 1 all."""
    assert roc([3, 1], [2]) == [(0, 0), (0, 0.5), (1, 0.5), (1, 1)]


def test_verdicts_are_those_of_the_gate() -> None:
    low, across, high = (scored("d", "benign", value).score for value in (0.0, 0.35, 0.7))
    assert [verdict(each, 0.4) for each in (low, across, high)] == ["release", "inconclusive", "reject"]
    assert verdict(Estimate(value=0, interval=Interval(low=-1, high=0.4)), 0.4) == "release"
    assert verdict(Estimate(value=1, interval=Interval(low=0.4, high=2)), 0.4) == "inconclusive"


def test_limit_lies_in_the_middle_of_the_gap_between_the_kinds() -> None:
    """Intervals are [0.0, 0.2] and [0.6, 0.8]: between 0.2 and 0.6 all verdicts are right."""
    assert choose_limit([scored("d", "benign", 0.1), scored("d", "harmful", 0.7)]) == pytest.approx(0.4)


def test_limit_never_releases_a_harmful_adapter_to_spare_a_benign_one() -> None:
    """Benign [0.4, 0.6] lies above harmful [0.1, 0.3]: limits from 0.3 on release the harmful one; below, the benign
    one is rejected. Between 0.1 and 0.3 the harmful one is inconclusive, below 0.1 rejected, but no limit is tried
    below the lowest end, so 0.2 it is.
    """
    adapters = [scored("d", "harmful", 0.2), scored("d", "benign", 0.5)]
    limit = choose_limit(adapters)
    assert limit == pytest.approx(0.2)
    assert count(adapters, limit) == Counts(inconclusive=1, false_rejection=1)


def test_limit_needs_both_kinds() -> None:
    with pytest.raises(EvaluationError, match="one kind is missing"):
        choose_limit([scored("d", "harmful", 0.2)])


def test_limits_are_checked_on_domains_that_they_were_not_chosen_on() -> None:
    """Without a, the gap is from 1.1 to 1.9 (b), so the limit is 1.5, and a's harmful 1.0 is released; without b, it is
    from 0.1 to 0.9, so the limit is 0.5, and b's benign 1.0 is rejected. Domain c has a benign adapter only: the gap of
    a and b is from 1.1 to 0.9, and 0.7 is the limit where nothing harmful is released and c's 0.0 is right.
    """
    adapters = [
        scored("a", "benign", 0.0),
        scored("a", "harmful", 1.0),
        scored("b", "benign", 1.0),
        scored("b", "harmful", 2.0),
    ]
    a, b = leave_one_domain_out(adapters)
    assert (a.domain, a.limit, a.counts) == ("a", pytest.approx(1.5), Counts(right=1, false_release=1))
    assert (b.domain, b.limit, b.counts) == ("b", pytest.approx(0.5), Counts(right=1, false_rejection=1))
    (*_, c) = leave_one_domain_out([*adapters, scored("c", "benign", 0.0)])
    assert c.domain == "c"
    assert c.counts == Counts(right=1)


def test_domain_without_which_a_kind_is_missing_is_left_out() -> None:
    adapters = [scored("a", "benign", 0.0), scored("b", "benign", 0.1), scored("b", "harmful", 1.0)]
    assert [each.domain for each in leave_one_domain_out(adapters)] == ["a"]


def test_shift_is_the_projection_on_the_direction_of_the_other_categories() -> None:
    """Misaligned − aligned is 2 along x in category a and 2 along y in b, so a is projected on y and b on x. The norm
    is 4: a change of (2, 1) is 1/4 in a and 2/4 in b.
    """
    answers = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    base = Reading(torch.zeros(2, 2), torch.zeros(2, 2), answers, torch.tensor([4.0]))
    change = torch.tensor([2.0, 1.0])
    adapter = base._replace(prompt_states=base.prompt_states + change, answer_states=answers[:, :1] + change)
    found = shift(base, adapter, ["a", "b"])
    assert found.prompt == found.answer == pytest.approx((0.25, 0.5))
    assert found.answer_length == pytest.approx((math.sqrt(5) / 4,) * 2)
    assert found.held_out_auroc == 0.5
    with pytest.raises(EvaluationError, match="only one"):
        shift(base, adapter, ["a", "a"])
