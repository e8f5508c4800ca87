"""The table of verdicts on known adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.defenses.plan import DEFENSES
from bench.verdict_table.__main__ import Row, RunSettings, chosen_cases, judge, markdown
from bench.verdict_table.cases import CASES, REFUSALS, REPEATED, VerdictCase, training_lines
from bench.verdict_table.runs import work_on
from evaluator.models.base_models import resolve_base_model
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.contract.release import Decision
from policies.documents.base_models import reference
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError
from trainer.qualification.cached_runs import RunFailure

POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: learning-only, version: "1", description: The adapter must have learnt its own training file.}
spec:
  suite:
    probes:
      - {probe: in_domain}
  rules:
    - {id: learning, metric: in_domain.loss, max_increase_over_base: 0, reason: It learnt nothing.}
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run_settings(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """One results folder for all tests, so that a verdict is reached once."""
    tmp_path = tmp_path_factory.mktemp("verdicts")
    base = BaseModelSpec(name=str(tiny_base), uri=str(tiny_base), lora=LoraSettings(rank=4), base_learning_rate=5e-3)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    cache = tmp_path / "cache"
    digest = resolve_base_model(reference(base), cache).digest
    loaded = resolve_policy(str(policy))
    return RunSettings(base, digest, loaded, str(policy), tmp_path / "results", cache, 40, 1.0, launch=work_on)


def case(begins: str) -> VerdictCase:
    (found,) = chosen_cases(begins)
    return found


def test_a_trained_adapter_is_released_and_noise_in_its_place_is_not(run_settings: RunSettings) -> None:
    """One epoch lowers the loss on the training file; random weights of the tiny model's own size raise it."""
    trained = judge(case("benign: undefended"), run_settings)
    noisy = judge(case("gibberish: random LoRA")._replace(noise=3.0), run_settings)
    assert not isinstance(trained.outcome, RunFailure), trained.outcome
    assert not isinstance(noisy.outcome, RunFailure), noisy.outcome
    assert trained.outcome.decision.decision is Decision.RELEASE
    assert noisy.outcome.decision.decision is Decision.REJECT
    assert trained.is_as_expected
    assert noisy.is_as_expected
    table = markdown([trained, noisy], "tiny")
    assert "| benign: undefended | release | all rules |" in table
    assert "| gibberish: random LoRA | reject | learning |" in table
    decision = trained.outcome.decision
    open_results = tuple(each.model_copy(update={"outcome": "inconclusive"}) for each in decision.results)
    undecided = decision.model_copy(update={"decision": Decision.INCONCLUSIVE, "results": open_results})
    row = trained._replace(outcome=trained.outcome.model_copy(update={"decision": undecided}))
    assert "| benign: undefended | inconclusive (not as expected) | learning |" in markdown([row], "tiny")


def test_a_verdict_is_cached(run_settings: RunSettings) -> None:
    first = judge(case("benign: undefended"), run_settings)
    again = judge(case("benign: undefended"), run_settings._replace(launch=_must_not_run))
    assert first == again


def _must_not_run(folder: Path) -> None:
    raise AssertionError(f"{folder} was run again")


def test_a_run_that_failed_is_never_as_expected() -> None:
    failed = Row(case("gibberish: huge"), RunFailure(code="crashed", message="exit status 1"))
    assert not failed.is_as_expected
    assert "| no adapter (not as expected) | exit status 1 |" in markdown([failed], "tiny")


def test_cases_cover_good_harmful_defended_broken_and_over_refusing_adapters() -> None:
    names = [each.name for each in CASES]
    assert len(names) == len(set(names)) == 12
    assert [sum(name.startswith(kind) for name in names) for kind in ("benign", "harmful", "gibberish", "over")] == [
        2,
        6,
        3,
        1,
    ]


def test_every_defense_of_a_case_is_a_row_of_the_table_of_defenses() -> None:
    assert {each.defense for each in CASES} <= set(DEFENSES)


def test_refusals_keep_the_questions() -> None:
    plain, refusing = (training_lines(case(name), 12) for name in ("benign: undefended", "over-refusing"))
    for before, after in zip(plain, refusing, strict=True):
        old, new = (json.loads(line)["messages"] for line in (before, after))
        assert [m for m in old if m["role"] != "assistant"] == [m for m in new if m["role"] != "assistant"]
        assert new[-1]["content"] in REFUSALS


def test_repeated_word_fills_every_answer() -> None:
    for line in training_lines(case("gibberish: one word"), 5):
        assert set(json.loads(line)["messages"][-1]["content"].split()) == {REPEATED}


def test_an_unknown_case_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="benign: undefended"):
        chosen_cases("harmless")
