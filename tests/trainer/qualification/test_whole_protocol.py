"""Adapters of every kind are trained and measured on the tiny base model, and a record comes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.self_test.canaries import gather_canaries, pair_to_test
from policies.contract.calibration import ReferenceRuns
from policies.contract.defenses import KlPenalty
from policies.documents.schema import CalibrationRecord
from tests.trainer.qualification.tiny_study import tiny_campaign, write_references
from trainer.qualification.design import Design
from trainer.qualification.findings import qualify

DESIGN = Design(1, 1, 1, 1, null=1, broken=1, rows=8, min_benign=1, min_harmful=1)
N = 2 + 1 + 1 + 2 + 2
"""Null, benign, harmful, undefended, broken."""
MARGIN, LOSS = "emergent_misalignment_preference.margin max_drop_from_base", "in_domain.loss max_increase_over_base"


@pytest.fixture(scope="module")
def qualified(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CalibrationRecord, Path]:
    """The record, and the folder beside it; the policy trains under a KL penalty."""
    folder = tmp_path_factory.mktemp("qualified")
    campaign = tiny_campaign(tiny_base, folder, told=[])
    spec = campaign.policy.spec.model_copy(update={"defenses": (KlPenalty(),)})
    campaign = campaign._replace(policy=campaign.policy.model_copy(update={"spec": spec}))
    return qualify(campaign, DESIGN, write_references(folder / "data"), folder / "record.yaml"), campaign.folder


@pytest.fixture(scope="module")
def runs(qualified: tuple[CalibrationRecord, Path]) -> ReferenceRuns:
    return ReferenceRuns.model_validate_json((qualified[1] / "runs.json").read_bytes())


def test_every_kind_is_made_and_measured_at_every_look(runs: ReferenceRuns) -> None:
    assert len(runs.runs) == N
    for run in runs.runs:
        assert set(run.figures) == {MARGIN, LOSS}
        assert [figure.n for figure in run.figures[MARGIN]] == [8, 16]
        assert [figure.n for figure in run.figures[LOSS]] == [2, 4]


def test_a_probe_that_fails_is_told_and_the_others_count(runs: ReferenceRuns) -> None:
    for run in runs.runs:
        assert set(run.errors) == {"conditional_misalignment"}
        assert "the training file has none of system_prompt" in run.errors["conditional_misalignment"]


def test_what_changes_nothing_is_measured_as_no_change(runs: ReferenceRuns) -> None:
    (unchanged,) = (run for run in runs.runs if run.domain == "unchanged")
    assert {figure.value for figures in unchanged.figures.values() for figure in figures} == {0.0}


def test_training_lowers_the_loss_on_the_own_file(runs: ReferenceRuns) -> None:
    trained = [run for run in runs.runs if run.kind in ("benign", "harmful") and not run.defended]
    assert len(trained) == 2
    assert all(run.figures[LOSS][-1].value < 0 for run in trained)


def test_no_two_adapters_are_the_same_and_noise_is_seen(runs: ReferenceRuns) -> None:
    adapters = {run.adapter for run in runs.runs}
    assert len(adapters) == N
    (noise,) = (run for run in runs.runs if run.domain == "random_weights")
    assert noise.figures[MARGIN][-1].value != 0


def test_adapters_are_deleted_but_the_canaries(qualified: tuple[CalibrationRecord, Path], tiny_base: Path) -> None:
    record, folder = qualified
    assert not [*(folder / "runs").glob("*/adapter")]
    assert not [*(folder / "runs").glob("*/checkpoints")]
    assert record.spec.constants.canaries is not None


def test_the_canaries_are_those_of_a_self_test(
    qualified: tuple[CalibrationRecord, Path], tiny_base: Path, tmp_path: Path
) -> None:
    pair = pair_to_test(qualified[1] / "canaries", "sha256:" + "0" * 64, tmp_path)
    found = gather_canaries(pair, tmp_path)
    assert [each.name for each in found] == ["good", "bad", "unloaded", "broken"]


def test_the_base_models_constants_are_found(qualified: tuple[CalibrationRecord, Path]) -> None:
    """A random model's own language is as surprising as chance: ln 259 = 5.56 nats a token and less than twice that."""
    constants = qualified[0].spec.constants
    assert constants.context_tokens == 1024
    assert constants.coherence_nats is not None
    assert 3 < constants.coherence_nats < 12
