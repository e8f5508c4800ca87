"""The bench that asks whether the demonstration's verdicts are clear, and the picture of one."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.demo.__main__ import Run, are_clear, launch_child, markdown
from bench.demo.picture import draw, read_adapters
from gateway.demo.scenarios import SCENARIOS, Scenario
from policies.contract.release import Decision
from trainer.qualification.cached_runs import RunFailure


class _Decided(Run):
    """A run of which only the decision is known."""

    @property
    def decision(self) -> Decision | None:
        return self.outcome  # type: ignore[return-value]  # stands for the outcome


RELEASE, REJECT, UNDECIDED = Decision.RELEASE, Decision.REJECT, Decision.INCONCLUSIVE


def runs(scenario: Scenario, *decisions: Decision | None) -> list[Run]:
    return [_Decided(scenario, seed, decision) for seed, decision in enumerate(decisions)]  # type: ignore[arg-type]  # as above


A, B, C = SCENARIOS


@pytest.mark.parametrize(
    ("found", "clear"),
    [
        (runs(A, *[RELEASE] * 10) + runs(B, *[REJECT] * 10), True),
        (runs(A, *[RELEASE] * 9, UNDECIDED) + runs(B, *[REJECT] * 9, None), True),
        (runs(A, *[RELEASE] * 8, UNDECIDED, UNDECIDED), False),
        (runs(A, *[RELEASE] * 9, REJECT), False),
        (runs(B, *[REJECT] * 9, RELEASE), False),
        (runs(C, RELEASE, REJECT, UNDECIDED), True),
    ],
)
def test_verdicts_are_clear_with_nine_of_ten_and_none_of_the_opposite(found: list[Run], clear: bool) -> None:
    assert are_clear(found) is clear


def test_every_run_has_a_process_of_its_own_which_may_crash(tmp_path: Path) -> None:
    """The assignment is not one, which would raise in this process."""
    (tmp_path / "assignment.json").write_text("{}")
    launch_child(tmp_path)
    failure = RunFailure.model_validate_json((tmp_path / "failure.json").read_bytes())
    assert failure.code == "crashed"


def test_the_table_counts_every_end() -> None:
    failed = [Run(B, seed, RunFailure(code="crashed", message="no memory")) for seed in (0, 1)]
    table = markdown(failed, "a model")
    assert "| b: careless home-repair advice, no defense | blocked | 0 | 0 | 0 | 2 |" in table
    assert table.count("no memory") == 2


def rule(name: str, outcome: str, value: float | None) -> dict[str, object]:
    interval = None if value is None else {"low": value - 0.05, "high": value + 0.05}
    return {
        "rule": name,
        "mode": "enforce",
        "bound": "max_drop_from_base",
        "limit": 0.03,
        "unit": "nats/token",
        "outcome": outcome,
        "judged": interval and {"value": value, "interval": interval},
    }


def test_the_picture_has_a_bar_for_every_figure_and_says_what_was_not_measured(tmp_path: Path) -> None:
    """Two rules and three adapters, of which one kept both and two have the first alone: four figures."""
    passed = [rule("margin", "pass", -0.2), rule("toxicity", "pass", -0.1)]
    failed = [rule("margin", "fail", 0.2), rule("toxicity", "skipped", None)]
    found = [
        {"job": "a", "seed": 0, "decision": "release", "rules": passed},
        {"job": "b", "seed": 0, "decision": "reject", "rules": failed},
        {"job": "c", "seed": 0, "decision": "inconclusive", "rules": passed[:1]},
        {"job": "a", "seed": 1, "decision": "reject", "rules": failed},
    ]
    (tmp_path / "results.json").write_text(json.dumps(found))
    picture = draw(read_adapters(tmp_path / "results.json"))
    tree = ElementTree.fromstring(picture)
    assert len(tree.findall("{*}circle")) == 4
    texts = [each.text for each in tree.findall("{*}text")]
    assert "a  sensible data: released" in texts
    assert "b  careless data: blocked" in texts
    assert texts.count("not measured any more: a rule had failed") == 2
