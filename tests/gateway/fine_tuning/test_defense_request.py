"""A tenant may strengthen the operator's defenses, never weaken them.

The operator demands KL at 0.1 and interleaving at 0.05, as the preset `baseline` does.
"""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest
from gateway.fine_tuning.spec import strengthened
from policies.contract.artifacts import digest_bytes
from policies.contract.defenses import DefenseSettings, KlPenalty, SafeDataInterleaving

KL, SAFE_DATA = KlPenalty(coefficient=0.1), SafeDataInterleaving(ratio=0.05)
POOL = digest_bytes(b"a pool")


def test_without_a_wish_the_operators_defenses_stand() -> None:
    assert strengthened((KL, SAFE_DATA), ()) == (KL, SAFE_DATA)


def test_stronger_setting_replaces_the_operators() -> None:
    stronger = KlPenalty(coefficient=0.5)
    assert strengthened((KL, SAFE_DATA), (stronger,)) == (stronger, SAFE_DATA)


def test_equal_setting_changes_nothing() -> None:
    assert strengthened((KL,), (KlPenalty(coefficient=0.1),)) == (KL,)


def test_defense_that_the_operator_does_not_demand_is_added() -> None:
    assert strengthened((KL,), (SafeDataInterleaving(ratio=0.2),)) == (KL, SafeDataInterleaving(ratio=0.2))


@pytest.mark.parametrize(
    "weaker",
    [
        pytest.param(KlPenalty(coefficient=0.09), id="lower-strength"),
        pytest.param(KlPenalty(coefficient=0.5, tokens="completion"), id="over-fewer-tokens"),
        pytest.param(KlPenalty(coefficient=0.5, direction="forward"), id="other-direction"),
        pytest.param(SafeDataInterleaving(ratio=0.2, pool=POOL), id="own-pool"),
    ],
)
def test_anything_else_is_refused(weaker: DefenseSettings) -> None:
    with pytest.raises(InvalidRequest) as error:
        strengthened((KL, SAFE_DATA), (weaker,))
    assert (error.value.param, error.value.code) == ("defense", "defense_weakened")


def test_added_defense_cannot_name_a_pool_either() -> None:
    """Its rows would be trained on without ever having been validated."""
    with pytest.raises(InvalidRequest):
        strengthened((KL,), (SafeDataInterleaving(ratio=0.2, pool=POOL),))


def test_defense_listed_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest) as error:
        strengthened((KL,), (KlPenalty(coefficient=0.5), KlPenalty(coefficient=0.2)))
    assert error.value.code == "defense_listed_twice"
