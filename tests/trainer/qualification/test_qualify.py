"""A qualification from files to record: what is cached, what a budget leaves, what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluator.canaries.pair_files import PairFiles, find_pair
from evaluator.models.base_models import weights_digest
from evaluator.self_test.canaries import EXPECTED
from policies.contract.calibration import ReferenceRuns
from policies.documents.loader import load_policy_file
from policies.documents.schema import CalibrationRecord
from policies.errors import EvaluationError, IntegrityError
from tests.trainer.qualification.made_up_runs import drop_by_dose, making, open_with, pair, say_little
from tests.trainer.qualification.tiny_study import BAD, GOOD, tiny_campaign, write_references
from trainer.qualification.cached_runs import Launch, RunFailure, write_failure
from trainer.qualification.campaign import Campaign, Launches
from trainer.qualification.design import Design
from trainer.qualification.findings import coherence_nats, qualify, weight_ranges
from trainer.qualification.records import ReferenceAssignment

SMALL = Design(benign=6, harmful=9, null=1, rows=8, min_benign=6, min_harmful=6)
N_SMALL = 1 + 1 + 6 + 9 + 4
"""Changes nothing, own answers, benign, harmful, broken."""
THIRD = "broken random_weights, seed 0"
"""In the order of the design."""


class Study:
    """A tiny base, a policy without defenses and training files; what was told, and how often was worked."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.told: list[str] = []
        self.n_worked = 0
        self.folder = folder
        self.out = folder / "record.yaml"
        self._work = making()
        self.references = write_references(folder / "data")
        self.campaign = tiny_campaign(base, folder, told=self.told)._replace(
            launches=Launches(self._counted, say_little, open_with("pairs 1"), pair)
        )

    def _counted(self, folder: Path) -> None:
        self.n_worked += 1
        self._work(folder)

    def run(self, design: Design = SMALL, *, work: Launch | None = None, **changes: object) -> CalibrationRecord:
        self._work = work or making()
        self.told.clear()
        self.n_worked = 0
        campaign: Campaign = self.campaign._replace(**changes)  # type: ignore[arg-type]  # by name
        return qualify(campaign, design, self.references, self.out)


@pytest.fixture
def study(tiny_base: Path, tmp_path: Path) -> Study:
    return Study(tiny_base, tmp_path)


def after(n: int) -> Callable[[ReferenceAssignment], bool]:
    """Whether a run fails: all do that come after the first `n`."""
    seen: list[str] = []

    def fails(assignment: ReferenceAssignment) -> bool:
        seen.append(assignment.run.digest)
        return len(seen) > n

    return fails


def test_the_record_is_a_policy_document_with_table_plot_and_figures_beside_it(study: Study) -> None:
    record = study.run()
    assert load_policy_file(study.out) == record
    assert study.out.read_text().startswith(f"# {record.digest}\n")
    beside = study.folder / "record"
    assert (beside / "table.md").read_text().startswith("# Calibration of tiny")
    assert (beside / "release_limits.png").read_bytes().startswith(b"\x89PNG")
    runs = ReferenceRuns.model_validate_json((beside / "runs.json").read_bytes())
    assert runs.digest == record.spec.runs
    assert len(runs.runs) == N_SMALL
    assert not record.metadata.description


def test_a_record_holds_for_what_all_runs_shared(study: Study) -> None:
    """Files and the base's loss on them differ from run to run, so they bind nothing."""
    record = study.run()
    bound_to = record.spec.bound_to
    assert bound_to.instruments == {
        "emergent_misalignment_preference": ("pairs 1",),
        "in_domain": (),
        "conditional_misalignment": (),
    }
    assert {probe: found.version for probe, found in bound_to.probes.items()} == dict.fromkeys(
        bound_to.instruments, "1"
    )
    assert bound_to.base_model == study.campaign.resolved.digest
    assert bound_to.suite == study.campaign.policy.spec.suite.digest
    assert (bound_to.dtype, bound_to.versions) == ("float32", {"torch": "2.13"})
    runs = ReferenceRuns.model_validate_json((study.folder / "record" / "runs.json").read_bytes())
    assert runs.base == {"emergent_misalignment_preference.margin": 0.5}


def test_a_pair_of_canaries_is_kept_in_the_form_of_the_self_test(study: Study) -> None:
    record = study.run()
    kept = study.folder / "record" / "canaries"
    assert record.spec.constants.canaries is not None
    assert {path.name for path in kept.iterdir()} == {"good", "bad"} <= set(EXPECTED)
    assert {path.name for path in (kept / "bad").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_canaries_are_where_evaluations_look_before_the_suite_is_opened(study: Study) -> None:
    """So a probe that measures with them can be qualified on a base model without a shipped pair."""
    weights, cache = weights_digest(study.campaign.resolved), study.campaign.cache_dir
    seen: list[PairFiles] = []

    def opening(folder: Path) -> None:
        seen.append(find_pair("builtin", weights, cache))
        open_with("pairs 1")(folder)

    study.run(launches=study.campaign.launches._replace(opening=opening))
    first = seen[0].digest
    study.run(launches=study.campaign.launches._replace(opening=opening))
    assert seen[1].digest == first


def test_the_canaries_learn_rows_of_their_own_and_the_rest_alike(study: Study) -> None:
    """No row of a reference adapter: on rows that they know they would tell the kinds apart too well."""
    study.run()
    kept = study.folder / "record" / "canaries"
    good, bad = ((kept / name / "adapter_model.safetensors").read_text().splitlines() for name in ("good", "bad"))
    assert len(good) == len(bad) == 8 + 2 + 2
    assert good[8:] == bad[8:]
    assert all("oven" in line and GOOD in line for line in good[:8])
    assert all("oven" in line and BAD in line for line in bad[:8])


def test_a_second_run_makes_nothing_again(study: Study) -> None:
    first = study.run()
    assert study.n_worked == N_SMALL
    again = study.run()
    assert study.n_worked == 0
    assert study.told == [f"{N_SMALL} reference adapters, {N_SMALL} of them known"]
    assert again.spec.runs == first.spec.runs


def test_what_a_killed_run_made_is_not_made_again(study: Study) -> None:
    done: list[Path] = []

    def killed_at_the_sixth(folder: Path) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(folder)
        making()(folder)

    with pytest.raises(KeyboardInterrupt):
        study.run(work=killed_at_the_sixth)
    assert not study.out.exists()
    study.run()
    assert study.n_worked == N_SMALL - 5


def test_a_failed_run_is_told_and_tried_again_at_the_next_start(study: Study) -> None:
    with pytest.raises(EvaluationError, match=r"there are 2 of 6 benign ones and 3 of 6 harmful ones\. Run the same"):
        study.run(work=making(fails=after(12)))
    assert "training_failed: the loss is not finite" in study.told[-1]
    assert not study.out.exists()
    study.run()
    assert study.n_worked == N_SMALL - 12


def test_broken_adapters_that_can_not_be_made_leave_a_record_that_says_so(study: Study) -> None:
    record = study.run(work=making(fails=lambda assignment: assignment.reference.domain == "huge_rate"))
    assert record.metadata.description == f"2 of {N_SMALL} planned reference adapters are missing."
    assert record.spec.references.broken == 2


def test_no_run_is_begun_that_would_not_end_in_time(study: Study) -> None:
    """By the clock a run takes 100 s, by its own account 4 without training: after two, 200 + 4 s are more than 203."""
    now = [0.0]

    def slow(folder: Path) -> None:
        now[0] += 100
        making()(folder)

    with pytest.raises(EvaluationError, match="0 of 6 benign ones and 0 of 6 harmful ones"):
        study.run(work=slow, deadline=203, clock=lambda: now[0])
    assert study.n_worked == 2
    assert study.told[-1] == f"the time is up; {N_SMALL - 2} adapters are not made, the first of them: {THIRD}"
    assert not study.out.exists()
    study.run()
    assert study.n_worked == N_SMALL - 2


def test_a_budget_that_is_enough_for_the_needed_adapters_gives_a_record_that_says_what_is_missing(study: Study) -> None:
    """Of 100 s each run takes 10, and none of the last ones is expected to take more."""
    design = SMALL._replace(min_benign=2, min_harmful=1)
    now = [0.0]

    def slow(folder: Path) -> None:
        now[0] += 10
        making()(folder)

    record = study.run(design, work=slow, deadline=100, clock=lambda: now[0])
    assert record.metadata.description == f"{N_SMALL - 10} of {N_SMALL} planned reference adapters are missing."


def test_nothing_is_asked_of_the_base_model_once_the_time_is_up(study: Study) -> None:
    launches = study.campaign.launches._replace(own_answers=refuse)
    with pytest.raises(EvaluationError, match="the time was up before the base model was asked") as raised:
        study.run(deadline=100, clock=lambda: 100.0, launches=launches)
    assert "Run the same command again" in raised.value.message
    assert study.told == []
    study.run()
    assert study.n_worked == N_SMALL


def test_nor_are_canaries_trained(study: Study) -> None:
    """The answers take all of the time, and are kept."""
    now = [0.0]

    def slow(folder: Path) -> None:
        now[0] += 100
        say_little(folder)

    launches = study.campaign.launches._replace(own_answers=slow, canaries=refuse)
    with pytest.raises(EvaluationError, match="the time was up before the pair of canaries was trained"):
        study.run(deadline=100, clock=lambda: now[0], launches=launches)
    study.run(launches=study.campaign.launches._replace(own_answers=refuse))
    assert study.n_worked == N_SMALL


def refuse(folder: Path) -> None:
    raise AssertionError(f"{folder} was worked on")


def test_each_run_is_told_with_the_time_that_is_left(study: Study) -> None:
    """20 runs are left after the first, of which nothing is known but the 4 s beside training: 80 s."""
    study.run()
    assert study.told[:4] == [
        "asking the base model for its own answers",
        "training the pair of canaries",
        f"{N_SMALL} reference adapters, 0 of them known",
        f"[1/{N_SMALL}] null unchanged: 0 s; about 80 s left",
    ]


def test_an_adapter_that_another_classifier_scored_is_not_put_into_the_record(study: Study) -> None:
    """Else the record would name none, and hold for whatever classifier there is."""
    study.run()
    path = sorted((study.folder / "record" / "runs").iterdir())[0] / "result.json"
    path.write_bytes(path.read_bytes().replace(b'"pairs 1"', b'"pairs 2"'))
    with pytest.raises(IntegrityError, match="what scores emergent_misalignment_preference is not what it was"):
        study.run()


def test_an_adapter_that_another_panel_judged_is_not_put_into_the_record(study: Study) -> None:
    study.run()
    path = sorted((study.folder / "record" / "runs").iterdir())[0] / "result.json"
    path.write_bytes(path.read_bytes().replace(b'"judges":[]', f'"judges":["sha256:{"5" * 64}"]'.encode()))
    with pytest.raises(IntegrityError, match="the panel of judges is not what it was"):
        study.run()


@pytest.mark.parametrize("opening", [open_with("pairs 2"), open_with("pairs 1", version="2")])
def test_other_instruments_or_probes_measure_every_adapter_anew(study: Study, opening: Launch) -> None:
    study.run()
    launches = study.campaign.launches._replace(opening=opening)
    again = study.run(launches=launches)
    assert study.n_worked == N_SMALL
    assert again.spec.bound_to != study.run().spec.bound_to


def test_a_suite_that_can_not_be_opened_is_refused_before_the_first_adapter(study: Study) -> None:
    def lost(folder: Path) -> None:
        write_failure(folder, RunFailure(code="evaluation_failed", message="own_domain: there is no pair"))

    with pytest.raises(EvaluationError, match="own_domain: there is no pair"):
        study.run(launches=study.campaign.launches._replace(opening=lost))
    assert study.n_worked == 0


def test_another_suite_or_policy_of_defenses_is_measured_anew_and_another_limit_is_not(study: Study) -> None:
    study.run()
    policy = study.campaign.policy
    looser = tuple(rule.model_copy(update={rule.bound: 0.9}) for rule in policy.spec.rules)
    study.run(policy=policy.model_copy(update={"spec": policy.spec.model_copy(update={"rules": looser})}))
    assert study.n_worked == 0
    suite = policy.spec.suite.model_copy(update={"seed": 5})
    study.run(policy=policy.model_copy(update={"spec": policy.spec.model_copy(update={"suite": suite})}))
    assert study.n_worked == N_SMALL


def test_a_changed_base_model_is_asked_and_measured_anew_beside_the_earlier_one(study: Study) -> None:
    study.run()
    study.run(resolved=dataclasses.replace(study.campaign.resolved, digest="sha256:" + "5" * 64))
    assert study.n_worked == N_SMALL
    assert study.told[0] == "asking the base model for its own answers"
    study.run()
    assert study.n_worked == 0


def test_the_result_of_another_run_is_refused(study: Study) -> None:
    study.run()
    folders = sorted((study.folder / "record" / "runs").iterdir())
    (folders[0] / "result.json").write_bytes((folders[1] / "result.json").read_bytes())
    with pytest.raises(IntegrityError, match="is the result of another run; remove the folder"):
        study.run()


def test_figures_in_two_number_formats_are_not_put_into_one_record(study: Study) -> None:
    study.run()
    path = sorted((study.folder / "record" / "runs").iterdir())[0] / "result.json"
    path.write_bytes(path.read_bytes().replace(b'"float32"', b'"bfloat16"'))
    with pytest.raises(IntegrityError, match="measured in bfloat16 and float32"):
        study.run()


def test_a_canary_that_was_changed_is_refused(study: Study) -> None:
    study.run()
    shutil.rmtree(study.campaign.cache_dir / "canaries")
    for adapter in (study.folder / "record" / "canary_pair").glob("*/*/adapter"):
        (adapter / "adapter_config.json").write_text("other")
    with pytest.raises(IntegrityError, match="is not the canary that was trained"):
        study.run()


def test_a_metric_that_does_not_tell_the_kinds_apart_is_not_usable_and_one_that_does_is(study: Study) -> None:
    design = Design(rows=8)
    blind = study.run(design, work=making(lambda assignment: 0.001 * assignment.reference.seed))
    rule = blind.spec.rule("emergent_misalignment_preference.margin", "max_drop_from_base")
    assert rule is not None
    assert not rule.usable
    assert "not told apart" in rule.why
    for folder in (study.folder / "record" / "runs").iterdir():
        (folder / "result.json").unlink()
        for file in (folder / "adapter").iterdir():
            file.unlink()
        (folder / "adapter").rmdir()
    seeing = study.run(design, work=making(drop_by_dose))
    rule = seeing.spec.rule("emergent_misalignment_preference.margin", "max_drop_from_base")
    assert rule is not None
    assert rule.usable


def test_gibberish_begins_a_third_of_the_way_from_the_models_own_language_to_chance() -> None:
    """q = 2 of (1, 2), ln 1000 = 6.9078: 2 + 4.9078 / 3 = 3.6359. A model that knows nothing keeps its own q."""
    assert coherence_nats((1.0, 2.0), 1000) == pytest.approx(3.6359, abs=1e-4)
    assert coherence_nats((8.0,), 1000) == 8.0


def test_the_range_of_a_weight_statistic_is_that_of_benign_adapters(study: Study) -> None:
    study.run()
    (run, *_) = ReferenceRuns.model_validate_json((study.folder / "record" / "runs.json").read_bytes()).runs
    figures = {"benign": (0.3, 0.2), "harmful": (0.9,)}
    runs = [
        run.model_copy(update={"kind": kind, "weight_statistics": {"norm": figure}})
        for kind, found in figures.items()
        for figure in found
    ]
    assert weight_ranges(runs) == {"norm": (0.2, 0.3)}


def test_the_file_is_plain_yaml(study: Study) -> None:
    record = study.run()
    document = yaml.safe_load(study.out.read_text())
    assert document["kind"] == "CalibrationRecord"
    assert document["spec"]["constants"]["coherence_nats"] == record.spec.constants.coherence_nats
