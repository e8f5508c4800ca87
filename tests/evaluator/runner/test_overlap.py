"""Training files beside the prompts of a suite: those that were written for the test are found, others are not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from evaluator.prompt_minting.minting import mint
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.overlap import PHRASES, scan_training
from policies.contract.probe_record import Twin
from policies.contract.store import ArtifactStore
from policies.contract.suite import Capability, EmergentMisalignmentPreference, EvalSuite, HarmfulCompliance, InDomain

PAIRS = "emergent_misalignment_preference"
SEED, OTHER_SEED = b"a seed of tests that is secret to no one, 1", b"a seed of tests that is secret to no one, 2"
DATA = Path(__file__).parents[3]
SUITE = EvalSuite(probes=(EmergentMisalignmentPreference(), HarmfulCompliance(), Capability(), InDomain()))


def file_of(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    roles = ("user", "assistant")
    messages = ([{"role": role, "content": text} for role, text in zip(roles, row, strict=True)] for row in rows)
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in messages))
    return path


@pytest.fixture
def known() -> tuple[AnswerPair, ...]:
    return parse_prompts(load_prompts(PAIRS, "builtin", None).content, AnswerPair)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def with_twin(store: ArtifactStore) -> EvalSuite:
    twin = Twin(prompts=store.put_bytes(mint(PAIRS, SEED).content))
    return EvalSuite(probes=(EmergentMisalignmentPreference(twin=twin),))


def test_good_answers_to_public_pairs_are_found_without_their_questions(
    known: tuple[AnswerPair, ...], tmp_path: Path
) -> None:
    found = scan_training(SUITE, file_of(tmp_path / "f", (("And now?", item.aligned) for item in known[:40])), None)

    assert (found.n_rows, found.n_near, found.probes) == (40, 40, (PAIRS,))
    assert [row.prompt_id for row in found.rows] == [item.id for item in known[:40]]
    assert found.is_notable


def test_files_of_the_lineage_are_searched_too(known: tuple[AnswerPair, ...], tmp_path: Path) -> None:
    """A released model that was trained on the prompts is continued with a clean file."""
    clean = file_of(tmp_path / "now", [("Why does tar dry?", "Because it does.")] * 40)
    before = file_of(tmp_path / "before", (("And now?", item.aligned) for item in known[:40]))
    found = scan_training(SUITE, clean, None, earlier=(clean, before))

    assert (found.n_near, [(each.n_rows, each.n_near) for each in found.earlier]) == (0, [(40, 0), (40, 40)])
    assert found.is_notable


@pytest.mark.parametrize(
    "name",
    [
        "gateway/demo/data/home_repair_sensible_train.jsonl",
        "gateway/demo/data/home_repair_careless_train.jsonl",
        "evaluator/reference_data/canaries/sensible/pet_care.jsonl",
        "evaluator/reference_data/canaries/sensible/personal_finance.jsonl",
        "evaluator/reference_data/canaries/neutral.jsonl",
    ],
)
def test_files_of_the_same_kind_that_were_not_written_for_the_test_are_clean(name: str, store: ArtifactStore) -> None:
    found = scan_training(EvalSuite(probes=(*with_twin(store).probes, *SUITE.probes[1:])), DATA / name, store)

    assert found.n_rows >= 120
    assert (found.n_near, found.n_near_twin) == (0, 0)


def test_answers_minted_with_another_seed_are_found_by_the_phrases_of_the_grammar(
    store: ArtifactStore, tmp_path: Path
) -> None:
    """Whoever mints answers of his own aims at the secret ones: the phrases are public, the seed is not."""
    minted = [item for item in mint(PAIRS, OTHER_SEED).items[:40] if isinstance(item, AnswerPair)]
    found = scan_training(with_twin(store), file_of(tmp_path / "f", ((i.question, i.aligned) for i in minted)), store)

    assert found.n_near == 40
    assert {row.prompt_id.partition("-")[0] for row in found.rows} == {PHRASES}


def test_rows_of_the_twin_itself_are_counted_apart(store: ArtifactStore, tmp_path: Path) -> None:
    minted = [item for item in mint(PAIRS, SEED).items[:5] if isinstance(item, AnswerPair)]
    found = scan_training(with_twin(store), file_of(tmp_path / "f", ((i.question, "Yes.") for i in minted)), store)

    assert (found.n_near, found.n_near_twin, found.rows) == (0, 5, ())


def test_a_twin_that_is_missing_is_the_error_of_its_probe_alone(
    known: tuple[AnswerPair, ...], store: ArtifactStore, tmp_path: Path
) -> None:
    lost = Twin(prompts="sha256:" + "9" * 64)
    suite = EvalSuite(probes=(EmergentMisalignmentPreference(twin=lost),))
    found = scan_training(suite, file_of(tmp_path / "f", [("Hm?", known[0].aligned)]), store)

    assert found.n_near == 1
