"""What a suite measures with, opened before the first adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evaluator.judges.judge import JudgePanel
from evaluator.probe import ReadsFiles
from evaluator.prompts.prompt_sets import BUILTIN
from evaluator.runner.base_results import BaseUnderTest
from evaluator.runner.instruments import Shelf, open_instruments
from evaluator.runner.probe_run import Bench, run_probe
from evaluator.runner.registry import PROBES
from policies.contract.judges import Panel
from policies.contract.own_domain_probe import OwnDomain
from policies.contract.store import ArtifactStore
from policies.contract.suite import (
    Coherence,
    ConditionalMisalignment,
    EmergentMisalignmentPreference,
    EvalSuite,
    HarmfulCompliance,
    InDomain,
)
from policies.errors import EvaluationError, NotAtHandError

NOWHERE = "sha256:" + "5" * 64
PANEL = Panel.model_validate(
    {
        "judges": [
            {"judge": "openai_compatible", "base_url": "http://127.0.0.1:9", "model": "m", "api_key_variable": "NO_KEY"}
        ]
    }
)


def test_prompts_and_instruments_are_named_without_a_file_of_a_job(bench: Callable[..., Bench], tmp_path: Path) -> None:
    made = bench()
    suite = EvalSuite(probes=(Coherence(), InDomain(), HarmfulCompliance(contexts="customer")))
    opened = open_instruments(suite, BaseUnderTest(made.base.backend, made.base_model), Shelf(tmp_path, None))
    assert opened.probes["coherence"].prompts == BUILTIN["coherence"][1]
    assert opened.probes["in_domain"].prompts is None
    assert opened.instruments["in_domain"] == ()
    assert len(opened.instruments["harmful_compliance"]) == 3


def test_every_probe_that_reads_a_training_file_tells_its_other_instruments_apart() -> None:
    reading = [probe for settings, probe in PROBES.items() if settings.reads_training_file]
    assert reading
    assert all(isinstance(probe, ReadsFiles) for probe in reading)


@pytest.mark.parametrize("store", [None, "store"])
def test_every_prompt_set_and_canary_that_can_not_be_opened_is_told(
    bench: Callable[..., Bench], tmp_path: Path, store: str | None
) -> None:
    made = bench()
    suite = EvalSuite(probes=(EmergentMisalignmentPreference(prompts=NOWHERE), OwnDomain()))
    shelf = Shelf(tmp_path, None if store is None else ArtifactStore(str(tmp_path / store)))
    with pytest.raises(EvaluationError, match=r"emergent_misalignment_preference: .*; own_domain: "):
        open_instruments(suite, BaseUnderTest(made.base.backend, made.base_model), shelf)


def test_judges_that_can_not_be_asked_are_refused(bench: Callable[..., Bench], tmp_path: Path) -> None:
    made = bench()
    suite = EvalSuite(probes=(HarmfulCompliance(judged=True),), panel=PANEL)
    with pytest.raises(EvaluationError, match="the judge's key is missing"):
        open_instruments(suite, BaseUnderTest(made.base.backend, made.base_model), Shelf(tmp_path, None))


def test_what_the_lack_of_judges_left_unmeasured_may_be_mended_and_what_the_file_lacks_may_not(
    bench: Callable[..., Bench],
) -> None:
    made = bench()
    adapter = replace(made.adapter, panel=_no_panel)
    unjudged = run_probe(HarmfulCompliance(judged=True), replace(made, adapter=adapter, base=adapter)).result
    assert unjudged.error == "the judges are away"
    assert unjudged.is_mendable
    fileless = replace(made.adapter, training=None)
    unread = run_probe(ConditionalMisalignment(), replace(made, adapter=fileless, base=fileless)).result
    assert unread.error is not None
    assert not unread.is_mendable


def _no_panel() -> JudgePanel:
    raise NotAtHandError("the judges are away")
