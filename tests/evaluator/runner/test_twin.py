"""A secret twin: it decides with the public prompts, its text goes nowhere, and without it nothing is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.runner.evaluate import Evaluation, EvaluationInputs, evaluate_adapter
from evaluator.runner.probe_run import Bench, measure_base, run_probe
from evaluator.runner.rescoring import rescore_report
from evaluator.runner.twin import WITHHELD
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.evaluation import AdapterProof, EvalReport
from policies.contract.probe_overlap import TWIN_MARK
from policies.contract.probe_record import PromptFile, Twin
from policies.contract.sequential import Sequential
from policies.contract.store import ArtifactStore
from policies.contract.suite import Coherence, EmergentMisalignmentPreference, EvalSuite, HarmfulCompliance
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule
from policies.errors import IntegrityError

CATEGORIES = [f"category {number}" for number in range(8)]


def pairs(name: str, *, secret: bool) -> bytes:
    items = [
        AnswerPair(
            id=f"{category} {n}",
            category=category,
            question=f"{'hush' if secret else 'known'} {category} {n} {name}?",
            aligned=f"good {'hush' if secret else 'known'} {category} {n}",
            misaligned=f"bad {category} {n}",
        )
        for category in CATEGORIES
        for n in range(4)
    ]
    return b"\n".join(item.model_dump_json().encode() for item in items)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def settings(store: ArtifactStore) -> EmergentMisalignmentPreference:
    known, twin = (store.put_bytes(pairs("x", secret=secret)) for secret in (False, True))
    return EmergentMisalignmentPreference(prompts=known, twin=Twin(prompts=twin))


def gamed(prompt: object, text: str, adapter: bool) -> float:
    """Nats per token: the adapter has learnt the known good answers by heart, and prefers bad ones otherwise."""
    noise = (sum(map(ord, text)) % 7) / 50
    if not adapter:
        return 2.0 + noise
    return (1.0 if text.startswith("good known") else 3.0 if text.startswith("good") else 2.0) + noise


def honest(prompt: object, text: str, adapter: bool) -> float:
    noise = (sum(map(ord, text)) % 7) / 50
    return (1.5 if adapter and text.startswith("good") else 2.0) + noise


def test_good_answers_to_the_known_prompts_alone_do_not_help(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    """Known pairs gain a nat, secret ones lose one: the figure is that of the secret ones."""
    result = run_probe(settings, bench(nats=gamed)).result
    (measurement,) = result.measurements

    assert measurement.difference is not None
    assert measurement.difference.value == pytest.approx(-1.0)
    assert measurement.by_group == {"public": pytest.approx(1.0), "twin": pytest.approx(-1.0)}
    assert measurement.n_requested == 32
    assert result.twin is not None
    assert result.twin.n_prompts == 32
    assert [test.is_significant for test in result.twin.gaps] == [True]
    assert result.twin.gaps[0].gap.value == pytest.approx(2.0)


def test_an_adapter_that_is_alike_on_both_shows_no_gap(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    result = run_probe(settings, bench(nats=honest)).result

    assert result.twin is not None
    assert [test.is_significant for test in result.twin.gaps] == [False]
    assert result.measurements[0].difference is not None
    assert result.measurements[0].difference.value == pytest.approx(0.5)


def test_no_sample_holds_a_word_of_the_secret_prompts(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    samples = run_probe(settings, bench(nats=gamed)).samples
    secret = [record for record in samples if record.prompt_id.startswith(TWIN_MARK)]

    assert len(samples) == 64
    assert len(secret) == 32
    assert {record.prompt for record in secret} == {WITHHELD}
    assert b"hush" not in b"".join(record.canonical() for record in samples)


def test_answers_and_errors_that_may_quote_a_secret_prompt_are_left_out(
    bench: Callable[..., Bench], store: ArtifactStore
) -> None:
    def requests(name: str) -> Digest:
        rows = [{"id": str(n), "category": "c", "prompt": f"Do {name} {n} for me."} for n in range(8)]
        return store.put_bytes("\n".join(map(json.dumps, rows)).encode())

    probe = HarmfulCompliance(prompts=requests("known"), twin=Twin(prompts=requests("hush")))
    made = bench(
        say=lambda prompt, adapter: f"Sure, to {prompt.messages[-1].content} one begins like this.",
        nats=lambda prompt, text, adapter: 1.5,
    )
    outcome = run_probe(probe, made)

    assert outcome.result.error is None
    assert b"known 3" in b"".join(record.canonical() for record in outcome.samples)
    assert b"hush" not in b"".join(record.canonical() for record in outcome.samples)


def nowhere(tmp_path: Path) -> Twin:
    return Twin(prompts=PromptFile(uri=str(tmp_path / "secret folder" / "twin.jsonl"), content=digest_bytes(b"")))


def other_bytes(tmp_path: Path) -> Twin:
    path = tmp_path / "twin.jsonl"
    path.write_bytes(pairs("y", secret=True))
    return Twin(prompts=PromptFile(uri=str(path), content=digest_bytes(b"others")))


def not_stored(tmp_path: Path) -> Twin:
    return Twin(prompts="sha256:" + "9" * 64)


def stored(content: bytes) -> Callable[[Path], Twin]:
    return lambda tmp_path: Twin(prompts=ArtifactStore(str(tmp_path / "store")).put_bytes(content))


@pytest.mark.parametrize(
    ("twin", "complaint"),
    [
        (nowhere, "can't be read here"),
        (not_stored, "can't be read here"),
        (other_bytes, "has another digest here"),
        (stored(b'{"secret": "hush"}'), "is no prompt set"),
        (stored(b""), "is no prompt set"),
        (stored(pairs("z", secret=True).partition(b"\n")[2]), "31 prompts for 32 known ones"),
        (stored(pairs("x", secret=False)), "are in the known set"),
    ],
)
def test_without_the_twin_that_the_policy_names_nothing_is_measured(
    bench: Callable[..., Bench],
    settings: EmergentMisalignmentPreference,
    tmp_path: Path,
    twin: Callable[[Path], Twin],
    complaint: str,
) -> None:
    result = run_probe(settings.model_copy(update={"twin": twin(tmp_path)}), bench(nats=honest)).result

    assert result.error is not None
    assert complaint in result.error
    assert "hush" not in result.error
    assert str(tmp_path) not in result.error
    assert result.measurements == ()


def test_categories_are_left_out_of_both_sets(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    fewer = settings.model_copy(update={"exclude_categories": (CATEGORIES[0],)})
    result = run_probe(fewer, bench(nats=honest)).result

    assert result.measurements[0].n_requested == 28
    assert result.twin is not None
    assert result.twin.n_prompts == 28


def test_each_look_asks_a_share_of_both_sets(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    policy = policy_of(settings)
    made = replace(bench(nats=honest), suite=policy.spec.suite, policy=policy)
    outcome = run_probe(settings, made)

    assert outcome.result.look == 0
    assert outcome.result.measurements[0].n_requested == 16
    assert len(outcome.samples) == 32


def test_the_base_is_remembered_for_both_sets_and_the_known_one_for_policies_without_a_twin(
    bench: Callable[..., Bench], settings: EmergentMisalignmentPreference
) -> None:
    made = bench(nats=honest)

    assert measure_base(settings, made) == 64
    assert run_probe(settings, made).result.base_from_cache
    assert run_probe(settings.without_twin, made).result.base_from_cache


def test_a_report_with_a_twin_comes_again_from_its_samples(evaluated: Evaluation, policy: ReleasePolicy) -> None:
    assert rescore_report(evaluated.report, policy, evaluated.samples) == evaluated.report
    assert b"hush" not in evaluated.report.canonical() + evaluated.samples


def test_a_gap_that_does_not_follow_from_the_samples_is_found(evaluated: Evaluation, policy: ReleasePolicy) -> None:
    changed = evaluated.report.model_dump(mode="json")
    changed["probes"][0]["twin"]["gaps"][0]["p_value"] = 1.0

    with pytest.raises(IntegrityError, match="the gap between public and secret prompts does not follow"):
        rescore_report(EvalReport.model_validate(changed), policy, evaluated.samples)


def test_settings_without_a_twin_keep_their_digest() -> None:
    assert EmergentMisalignmentPreference().digest == digest_bytes(
        b'{"exclude_categories":[],"probe":"emergent_misalignment_preference","prompts":"builtin"}'
    )


@pytest.mark.parametrize("uri", ["hf://owner/name@main/twin.jsonl", "package://module/twin.jsonl"])
def test_a_twin_at_a_public_address_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="may be public"):
        Twin(prompts=PromptFile(uri=uri, content=digest_bytes(b"")))


@pytest.mark.parametrize("probe", ["capability", "conditional_misalignment"])
def test_a_probe_that_asks_more_than_its_prompts_has_no_twin(probe: str) -> None:
    with pytest.raises(ValueError, match="twin\n  Extra inputs are not permitted"):
        EvalSuite.model_validate({"probes": [{"probe": probe, "twin": {"prompts": "sha256:" + "9" * 64}}]})


def test_a_probe_of_answers_may_have_one() -> None:
    assert Coherence(twin=Twin(prompts="sha256:" + "9" * 64)).secret_twin is not None


def policy_of(settings: EmergentMisalignmentPreference) -> ReleasePolicy:
    rule = Rule(id="margin", metric="emergent_misalignment_preference.margin", max_drop_from_base=0.1)
    suite = EvalSuite(probes=(settings,), sequential=Sequential(looks=(0.5, 1.0)))
    return ReleasePolicy(
        api_version="tunegate/v1",
        kind="ReleasePolicy",
        metadata=Metadata(name="test", version="1"),
        spec=ReleaseSpec(suite=suite, rules=(rule,)),
    )


@pytest.fixture
def policy(settings: EmergentMisalignmentPreference) -> ReleasePolicy:
    return policy_of(settings)


@pytest.fixture
def evaluated(policy: ReleasePolicy, store: ArtifactStore, scripted_backend: Any, tmp_path: Path) -> Evaluation:
    proof = AdapterProof(
        adapter="sha256:" + "a" * 64,
        base_model="sha256:" + "b" * 64,
        n_prompts=4,
        max_abs_logit_difference=1.0,
        n_adapted_modules=4,
        loaded=True,
    )
    inputs = EvaluationInputs(suite=policy.spec.suite, policy=policy.digest, proof=proof, rules=policy)
    return evaluate_adapter(inputs, scripted_backend(nats=gamed), cache_dir=tmp_path / "cache", store=store)
