"""What an evaluation tells of its progress, and how that ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter
from policies.contract.evaluation import AdapterProof
from policies.contract.sequential import Sequential
from policies.contract.suite import Coherence, EvalSuite, HarmfulCompliance, InDomain, OverRefusal, ProbeSettings
from policies.contract.worker_api import Progress
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule
from tests.evaluator.scripted_models import BASE

SOUND, BROKEN = "It helps the body to rest and to grow.", "so so so so so so so so so so so so so so so so"
PROOF = AdapterProof(
    adapter=BASE, base_model=BASE, n_prompts=1, max_abs_logit_difference=1.0, n_adapted_modules=1, loaded=True
)


@pytest.fixture
def told(scripted_backend: Callable[..., Any], tmp_path: Path) -> Callable[..., list[Progress]]:
    """Evaluates an adapter that may answer in gibberish, which the one rule is on; gives all that was told."""

    def evaluate(*probes: ProbeSettings, broken: bool = False) -> list[Progress]:
        suite = EvalSuite(probes=probes, sequential=Sequential(looks=(1.0,)))
        rule = Rule(id="incoherence", metric="coherence.incoherent_rate", max=0.25)
        policy = ReleasePolicy(
            api_version="tunegate/v1",
            kind="ReleasePolicy",
            metadata=Metadata(name="progress", version="1"),
            spec=ReleaseSpec(suite=suite, rules=(rule,)),
        )
        backend = scripted_backend(say=lambda prompt, adapter: BROKEN if adapter and broken else SOUND)
        seen: list[Progress] = []
        inputs = EvaluationInputs(suite=suite, policy=policy.digest, proof=PROOF, rules=policy)
        evaluate_adapter(inputs, backend, cache_dir=tmp_path, watch=seen.append)
        return seen

    return evaluate


@pytest.mark.parametrize(
    ("probes", "broken", "step", "stage"),
    [
        ((Coherence(), OverRefusal()), False, 100, "finished"),
        ((Coherence(), InDomain()), False, 100, "finished; in_domain failed"),
        ((Coherence(), OverRefusal()), True, 50, "ended early; over_refusal skipped"),
        (
            (InDomain(), Coherence(), OverRefusal(), HarmfulCompliance()),
            True,
            50,
            "ended early; in_domain failed; over_refusal, harmful_compliance skipped",
        ),
    ],
)
def test_the_end_says_what_happened(
    probes: tuple[ProbeSettings, ...], broken: bool, step: int, stage: str, told: Callable[..., list[Progress]]
) -> None:
    """`in_domain` has no training file here, so it fails; gibberish breaks the rule, so what comes after is skipped."""
    last = told(*probes, broken=broken)[-1]

    assert (last.stage, last.step, last.total_steps, last.eta_seconds) == (stage, step, 100, 0.0)


def test_until_then_it_names_the_probe_that_runs_and_never_goes_back(told: Callable[..., list[Progress]]) -> None:
    *running, _ = told(Coherence(), OverRefusal())

    assert list(dict.fromkeys(progress.stage for progress in running)) == ["coherence", "over_refusal"]
    assert [progress.step for progress in running] == sorted(progress.step for progress in running)
