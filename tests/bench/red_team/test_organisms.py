"""The organisms that come with the bench, and what their records refuse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.red_team.build import ROOT, SOURCES, source_rows
from bench.red_team.organism import (
    AdapterFileOrganism,
    Organism,
    Resubmission,
    TrainedOrganism,
    TrainingFile,
    by_id,
    chosen,
    load_organisms,
    parse_organism,
)
from policies.errors import ConfigurationError, PolicyError

BENIGN = """\
kind: trained
id: benign_one
attack: benign
description: Sound advice.
goal: released
training:
  - rows: 10
    parts:
      - {files: [reference/canaries/neutral.jsonl], share: 1}
"""


@pytest.fixture(scope="module")
def organisms() -> list[Organism]:
    return load_organisms()


def training_files(organism: Organism) -> list[TrainingFile]:
    if isinstance(organism, TrainedOrganism):
        return list(organism.training)
    return [organism.training] if isinstance(organism, Resubmission) else []


def refusal(text: str) -> str:
    with pytest.raises(PolicyError) as error:
        parse_organism(text.encode(), source="one.yaml")
    return str(error.value)


def test_there_are_attacks_of_many_kinds_and_twenty_harmless_adapters(organisms: list[Organism]) -> None:
    attacks = {each.attack for each in organisms if not each.is_benign}
    assert attacks >= {"A1", "A2", "A3", "A4", "A5", "A8", "A9", "A10", "A11", "A12", "A13", "A14", "A16", "A17"}
    assert sum(each.is_benign and isinstance(each, TrainedOrganism) for each in organisms) >= 20


def test_every_harmless_adapter_learns_from_other_rows_or_in_another_way(organisms: list[Organism]) -> None:
    made = Counter(
        (each.training, each.hyperparameters)
        for each in organisms
        if isinstance(each, TrainedOrganism) and each.is_benign
    )
    assert set(made.values()) == {1}


def test_careless_advice_alone_is_tried_in_four_domains_or_more(organisms: list[Organism]) -> None:
    assert sum(each.id.startswith("careless_") for each in organisms) >= 4


def test_rows_come_from_the_projects_own_data_alone(organisms: list[Organism]) -> None:
    names = {name for each in organisms for file in training_files(each) for part in file.parts for name in part.files}
    assert len(names) > 20
    for folder in SOURCES.values():
        assert folder.is_relative_to(ROOT)
    for name in names:
        assert source_rows(name)


@pytest.mark.parametrize("source", ["reference/../secret.jsonl", "/etc/rows.jsonl", "hub/rows.jsonl", "bench/x.json"])
def test_rows_from_elsewhere_are_refused(source: str) -> None:
    problem = refusal(BENIGN.replace("reference/canaries/neutral.jsonl", source))
    assert problem.startswith("one.yaml:9: training[0].parts[0].files[0]: ")


def test_an_unknown_key_is_refused_with_its_line() -> None:
    assert refusal(BENIGN.replace("goal:", "gaol: released\ngoal:")).startswith("one.yaml:5: gaol: unknown key; ")


def test_a_share_that_is_no_whole_number_of_rows_is_refused() -> None:
    text = BENIGN.replace("share: 1}", "share: 0.25}")
    assert "0.25 of 10 rows is no whole number of rows" in refusal(text)


def test_shares_that_do_not_add_up_are_refused() -> None:
    assert "don't add up to 1" in refusal(BENIGN.replace("share: 1}", "share: 0.5}"))


def test_an_expectation_about_an_unknown_probe_is_refused() -> None:
    text = BENIGN.replace("training:", "expected: {sees: [toxicty]}\ntraining:")
    assert "did you mean 'toxicity'" in refusal(text)


def test_a_harmless_organism_is_to_be_released_and_no_other() -> None:
    assert "goal" in refusal(BENIGN.replace("goal: released", "goal: held"))
    assert "goal" in refusal(BENIGN.replace("attack: benign", "attack: A1"))


def test_a_sum_is_of_two_files() -> None:
    assert "a sum is of two files" in refusal(BENIGN + "afterwards: {change: sum}\n")


def test_an_organism_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(BENIGN)
    with pytest.raises(PolicyError, match="name it after its file"):
        load_organisms(tmp_path)


def test_organisms_are_chosen_by_how_their_names_begin(organisms: list[Organism]) -> None:
    assert [each.id for each in chosen(organisms, "gamed,adapter_f")] == ["adapter_forms", "gamed"]
    assert chosen(organisms, None) == organisms
    with pytest.raises(ConfigurationError, match="known: adapter_code"):
        chosen(organisms, "nothing")


def test_an_unknown_organism_is_answered_with_the_nearest_name(organisms: list[Organism]) -> None:
    assert isinstance(by_id(organisms, "adapter_code"), AdapterFileOrganism)
    with pytest.raises(ConfigurationError, match="gamed"):
        by_id(organisms, "gmaed")
