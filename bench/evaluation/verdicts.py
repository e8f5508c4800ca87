"""Seconds and samples to a verdict: sequential against fixed-n, and what a second adapter on the same base costs.

Both ways judge by the same policy; they differ in `suite.sequential` alone. Base results are cached before the cases
are timed, each way in a cache of its own, as a provider has them from the second adapter on; the base's loss on a new
training file is always part of the time.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.evaluation.case_adapters import Case
from evaluator.backends.engines import Attach
from evaluator.gate import decide
from evaluator.runner.evaluate import Evaluation, EvaluationInputs, evaluate_adapter
from evaluator.sampling.training_file import file_rows
from policies.contract.artifacts import digest_tree
from policies.contract.evaluation import SampleRecord
from policies.contract.metrics import probe_of
from policies.contract.release import GateDecision
from policies.contract.sequential import Sequential
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy

FIXED, SEQUENTIAL = "fixed-n", "sequential"


class Verdict(NamedTuple):
    """How one case was decided in one way."""

    case: str
    way: str
    decision: str
    seconds: float
    samples: dict[str, int]
    """Probe → prompts that the adapter was asked."""
    deciding: tuple[str, ...]
    """Probes whose enforced rules made the decision."""


class SecondAdapter(NamedTuple):
    """Two adapters on one loaded base, every prompt asked."""

    first_seconds: dict[str, float]
    """Probe → seconds without base results."""
    second_seconds: dict[str, float]
    """Probe → seconds of the other adapter after it."""

    @property
    def ratio(self) -> float:
        return round(sum(self.second_seconds.values()) / sum(self.first_seconds.values()), 3)


class CaseSettings(NamedTuple):
    """Where cases are judged."""

    policy: ReleasePolicy
    attach: Attach
    cache_dir: Path

    def way(self, name: str) -> CaseSettings:
        """The same policy one way or the other, with a cache of base results of its own."""
        spec = self.policy.spec
        looks = (spec.suite.sequential or Sequential()) if name == SEQUENTIAL else None
        suite = spec.suite.model_copy(update={"sequential": looks})
        policy = self.policy.model_copy(update={"spec": spec.model_copy(update={"suite": suite})})
        return self._replace(policy=policy, cache_dir=self.cache_dir / name)


def judge_cases(cases: Sequence[Case], case_settings: CaseSettings) -> list[Verdict]:
    """Every case both ways; the last case goes first, without base results, to fill the caches."""
    fixed, sequential = case_settings.way(FIXED), case_settings.way(SEQUENTIAL)
    judge_case(cases[-1], fixed, way="fixed-n without base results")
    verdicts = [judge_case(case, fixed, way=FIXED) for case in cases]
    judge_case(cases[-1], sequential, way="sequential without base results, all looks", ends_early=False)
    return verdicts + [judge_case(case, sequential, way=SEQUENTIAL) for case in cases]


def second_adapter(first: Case, second: Case, case_settings: CaseSettings) -> SecondAdapter:
    """Probe by probe, since other load on the machine comes and goes."""
    case_settings = case_settings.way(FIXED)
    case_settings = case_settings._replace(cache_dir=case_settings.cache_dir.with_name("second-adapter"))
    seconds: list[dict[str, float]] = [{}, {}]
    for settings in case_settings.policy.spec.suite.probes:
        suite = case_settings.policy.spec.suite.model_copy(update={"probes": (settings,)})
        for case, found in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            _evaluate(case, case_settings, suite, rules=None)
            found[settings.probe] = round(time.perf_counter() - started, 2)
        print(f"{settings.probe}: first {seconds[0][settings.probe]} s, second {seconds[1][settings.probe]} s")
        sys.stdout.flush()
    return SecondAdapter(*seconds)


def _evaluate(case: Case, case_settings: CaseSettings, suite: EvalSuite, *, rules: ReleasePolicy | None) -> Evaluation:
    with case_settings.attach(case.adapter, digest_tree(case.adapter)) as (backend, proof):
        inputs = EvaluationInputs(
            suite=suite, policy=case_settings.policy.digest, proof=proof, training=file_rows(case.training), rules=rules
        )
        return evaluate_adapter(inputs, backend, cache_dir=case_settings.cache_dir)


def judge_case(case: Case, case_settings: CaseSettings, *, way: str, ends_early: bool = True) -> Verdict:
    started = time.perf_counter()
    evaluation = _evaluate(
        case, case_settings, case_settings.policy.spec.suite, rules=case_settings.policy if ends_early else None
    )
    decision = decide(case_settings.policy, evaluation.report)
    seconds = round(time.perf_counter() - started, 2)
    records = [SampleRecord.model_validate_json(line) for line in evaluation.samples.splitlines()]
    samples = dict(Counter(probe for probe, _ in {(record.probe, record.prompt_id) for record in records}))
    print(f"{case.name}, {way}: {decision.decision.value} in {seconds} s, {sum(samples.values())} samples {samples}")
    for reason in decision.reasons:
        print(f"  {reason}")
    sys.stdout.flush()
    return Verdict(case.name, way, decision.decision.value, seconds, samples, _deciding(decision))


def _deciding(decision: GateDecision) -> tuple[str, ...]:
    """Of a rejection the failed probes; of a release all enforced ones; otherwise those that settled nothing."""
    enforced = [result for result in decision.results if result.mode == "enforce"]
    outcomes = {"reject": {"fail"}, "release": {"pass"}}.get(decision.decision.value, {"inconclusive", "error"})
    decided = [probe_of(result.metric) for result in enforced if result.outcome in outcomes]
    return tuple(dict.fromkeys(decided))
