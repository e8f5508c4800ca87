from __future__ import annotations

from typing import get_args

import pytest

from policies.contract.composition import require_composable
from policies.contract.defenses import (
    DEFENSE_NAMES,
    DefenseSettings,
    EarlyStoppingOnSafety,
    KlPenalty,
    SafeDataInterleaving,
    TokenConstrainedSft,
    strength,
)
from policies.contract.jobs import Dpo, Supervised
from policies.errors import ConfigurationError


def test_all_supervised_defenses_compose() -> None:
    require_composable([KlPenalty(), SafeDataInterleaving(), TokenConstrainedSft()], Supervised())


def test_a_defense_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="listed twice"):
        require_composable([KlPenalty(), KlPenalty(coefficient=0.2)], Supervised())


@pytest.mark.parametrize(
    "defense",
    [SafeDataInterleaving(), TokenConstrainedSft(), KlPenalty(estimator="sampled", tokens="completion")],
    ids=lambda defense: defense.name,
)
def test_what_needs_supervised_rows_is_refused_by_dpo_with_the_reason(defense: DefenseSettings) -> None:
    with pytest.raises(ConfigurationError, match=f"defense {defense.name} does not work with method dpo: ") as refused:
        require_composable([defense], Dpo())
    assert refused.value.param == "method.type"


def test_the_other_defenses_work_with_preferences() -> None:
    kinds = get_args(get_args(DefenseSettings)[0])
    working = [kind() for kind in kinds if kind().against_dpo() is None]
    require_composable(working, Dpo())
    assert len(kinds) == len(DEFENSE_NAMES) == 8
    assert len(working) == 6


def test_a_lower_limit_of_early_stopping_is_stronger() -> None:
    assert strength(EarlyStoppingOnSafety(max_drop=0.01)) > strength(EarlyStoppingOnSafety(max_drop=0.03))  # type: ignore[operator]  # both have a strength


@pytest.mark.parametrize("change", [{"tokens": "all"}, {"direction": "forward"}, {"on": "safe_data"}])
def test_sampled_kl_says_what_it_cannot_see(change: dict[str, str]) -> None:
    (field,) = change
    with pytest.raises(ValueError, match=f"{field}: .* needs whole distributions"):
        KlPenalty.model_validate({"estimator": "sampled", "tokens": "completion"} | change)
