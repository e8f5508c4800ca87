from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract.error_budget import fixed_confidence, look_confidence, probe_confidence
from policies.contract.sequential import Sequential
from policies.contract.suite import Coherence, ConditionalMisalignment, EvalSuite
from policies.errors import ConfigurationError, EvaluationError

LOOKS = (0.125, 0.25, 0.5, 1.0)
ALPHAS = (0.00625, 0.00625, 0.0125, 0.025)
"""5 % spent in proportion to the share: an eighth, an eighth, a quarter, a half."""


def growing_shares() -> st.SearchStrategy[list[float]]:
    return st.sets(st.integers(1, 1000), min_size=1, max_size=8).map(
        lambda parts: [part / 1000 for part in sorted(parts)]
    )


@pytest.mark.parametrize(("look", "alpha"), list(enumerate(ALPHAS)))
def test_a_look_has_the_error_probability_of_the_share_that_it_adds(look: int, alpha: float) -> None:
    assert look_confidence(0.95, LOOKS, look, attempt=1) == pytest.approx(1 - alpha, abs=1e-15)


def test_third_attempt_has_a_quarter_of_the_error_probability() -> None:
    """0.05 / 4 = 0.0125 in all, an eighth of it, 0.0015625, at the first look."""
    assert fixed_confidence(0.95, attempt=3) == pytest.approx(1 - 0.0125, abs=1e-15)
    assert look_confidence(0.95, LOOKS, 0, attempt=3) == pytest.approx(1 - 0.0015625, abs=1e-15)


def test_first_attempt_at_a_fixed_sample_has_the_confidence_of_the_suite() -> None:
    assert fixed_confidence(0.95, attempt=1) == look_confidence(0.95, [1.0], 0, attempt=1) == 0.95


@given(looks=growing_shares(), confidence=st.floats(0.8, 0.999), attempt=st.integers(1, 12))
def test_looks_never_spend_more_than_the_attempt_has(looks: list[float], confidence: float, attempt: int) -> None:
    """Summed as exact fractions of the doubles that are returned, so that no rounding hides an excess."""
    spent = sum(
        (1 - Fraction(look_confidence(confidence, looks, look, attempt=attempt)) for look in range(len(looks))),
        Fraction(0),
    )
    budget = (1 - Fraction(confidence)) * Fraction(looks[-1]) / 2 ** (attempt - 1)

    assert 0 <= budget - spent < 1e-14


@given(st.floats(0.8, 0.999))
def test_one_sided_error_of_all_attempts_stays_within_the_suites(confidence: float) -> None:
    spent = sum((1 - Fraction(fixed_confidence(confidence, attempt=attempt))) / 2 for attempt in range(1, 41))

    assert spent <= 1 - Fraction(confidence)


@given(looks=growing_shares(), confidence=st.floats(0.8, 0.999), attempt=st.integers(1, 12))
def test_a_look_and_a_later_attempt_never_loosen_the_intervals(
    looks: list[float], confidence: float, attempt: int
) -> None:
    for look in range(len(looks)):
        now = look_confidence(confidence, looks, look, attempt=attempt)
        assert confidence <= now <= look_confidence(confidence, looks, look, attempt=attempt + 1) < 1


@pytest.mark.parametrize("look", [-1, 4])
def test_look_out_of_range_is_refused(look: int) -> None:
    with pytest.raises(ConfigurationError, match="counted from 0"):
        look_confidence(0.95, LOOKS, look, attempt=1)


@pytest.mark.parametrize("looks", [(), (0.0, 1.0), (0.5, 0.5, 1.0), (0.5, 0.25), (0.5, 1.5), (float("nan"),)])
def test_looks_that_do_not_grow_within_the_prompts_are_refused(looks: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="grow"):
        look_confidence(0.95, looks, 0, attempt=1)


def test_attempt_before_the_first_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="attempt 0"):
        fixed_confidence(0.95, attempt=0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_confidence_that_promises_nothing_or_everything_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigurationError, match="confidence"):
        fixed_confidence(confidence, attempt=1)


def test_attempts_end_where_a_double_can_not_tell_the_confidence_from_one() -> None:
    """The double below 1 is 1 − 2⁻⁵³. Attempt 49 has 0.05 · 2⁻⁴⁸ = 1.6 · 2⁻⁵³ left, attempt 50 0.8 · 2⁻⁵³."""
    assert fixed_confidence(0.95, attempt=49) < 1
    with pytest.raises(EvaluationError, match="attempt 50"):
        fixed_confidence(0.95, attempt=50)


SUITE = EvalSuite(probes=(Coherence(), ConditionalMisalignment()))
LOOKING = SUITE.model_copy(update={"sequential": Sequential(looks=LOOKS)})


@given(st.floats(0.8, 0.9999))
def test_only_candidate_has_the_confidence_of_the_suite_to_the_last_digit(confidence: float) -> None:
    suite = SUITE.model_copy(update={"confidence": confidence})

    assert (
        probe_confidence(suite, "coherence", 0) == probe_confidence(suite, "coherence", 0, candidates=1) == confidence
    )


@pytest.mark.parametrize(("candidates", "alpha"), [(2, 0.025), (5, 0.01)])
def test_candidates_share_the_error_probability(candidates: int, alpha: float) -> None:
    found = probe_confidence(SUITE, "coherence", 0, candidates=candidates)

    assert found == pytest.approx(1 - alpha, abs=1e-15)


@pytest.mark.parametrize(("look", "alpha"), list(enumerate(ALPHAS)))
def test_probe_that_is_asked_in_parts_has_the_confidence_of_its_look(look: int, alpha: float) -> None:
    """In the second attempt of two candidates it is a quarter of the look's."""
    found = probe_confidence(LOOKING, "coherence", look, attempt=2, candidates=2)

    assert found == pytest.approx(1 - alpha / 4, abs=1e-15)


@pytest.mark.parametrize(("suite", "probe"), [(SUITE, "coherence"), (LOOKING, "conditional_misalignment")])
def test_probe_that_is_asked_at_once_has_the_whole_error_probability(suite: EvalSuite, probe: str) -> None:
    assert probe_confidence(suite, probe, 0) == 0.95
    assert probe_confidence(suite, probe, 0, attempt=2) == pytest.approx(0.975, abs=1e-15)


def test_whole_sample_may_be_the_last_look_and_more_may_not() -> None:
    assert look_confidence(0.95, [0.5], 0, attempt=1) == pytest.approx(0.975, abs=1e-15)
    assert look_confidence(0.95, [0.5, 1.0], 1, attempt=1) == pytest.approx(0.975, abs=1e-15)


def test_confidence_is_rounded_up() -> None:
    """The error probability that is given out is never above the one that was meant, and hardly below."""
    for attempt in range(1, 45):
        exact = 1 - (1 - Fraction(0.95)) * Fraction(1 / 3) / 2 ** (attempt - 1)
        found = Fraction(look_confidence(0.95, [1 / 3], 0, attempt=attempt))
        assert exact <= found < exact + Fraction(1, 2**50)


def test_what_is_refused_is_told() -> None:
    wrong = {
        "looks [0.5, 0.5] must grow within (0, 1], e.g. [0.125, 0.25, 0.5, 1]": lambda: look_confidence(
            0.95, [0.5, 0.5], 0, attempt=1
        ),
        "there is no look 2 among 1, counted from 0": lambda: look_confidence(0.95, [1.0], 2, attempt=1),
        "confidence 1.5 must lie in (0, 1)": lambda: fixed_confidence(1.5, attempt=1),
        "attempt 0 does not exist; the first one is 1": lambda: fixed_confidence(0.95, attempt=0),
        "no error probability is left for this look of attempt 60 on nearly the same training file": lambda: (
            fixed_confidence(0.95, attempt=60)
        ),
    }
    for message, refused in wrong.items():
        with pytest.raises((ConfigurationError, EvaluationError)) as error:
            refused()
        assert str(error.value) == message
