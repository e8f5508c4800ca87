"""Every defense declares what is asked of it without its name."""

from __future__ import annotations

from typing import get_args

import pytest

from policies.contract.defenses import DEFENSE_NAMES, DefenseRecord, DefenseSettings
from trainer import registry
from trainer.defense import Defense

DEFENSES = {kind.name: kind for kind in Defense.__subclasses__() if kind.__module__.startswith("trainer.defenses.")}
SETTINGS: dict[str, type[DefenseRecord]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(DefenseSettings)[0])
}
CALLED_WHERE_DECLARED = {
    "around_forward": "changes_forwards",
    "forward_digest": "changes_forwards",
    "project_adapter": "projects_adapter",
}


def test_there_is_one_defense_for_all_settings() -> None:
    assert set(SETTINGS) == set(DEFENSE_NAMES) == set(DEFENSES)
    assert len(registry._BUILDERS) == len(DEFENSE_NAMES)


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_a_projection_is_declared_as_the_settings_say(name: str) -> None:
    """By the settings a policy is checked that would release checkpoints, by the defense none of them is released."""
    assert DEFENSES[name].projects_adapter == SETTINGS[name].projects_adapter


@pytest.mark.parametrize("hook", CALLED_WHERE_DECLARED)
@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_a_hook_is_there_where_it_is_declared(name: str, hook: str) -> None:
    assert (hook in vars(DEFENSES[name])) == getattr(DEFENSES[name], CALLED_WHERE_DECLARED[hook])
