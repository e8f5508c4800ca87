"""Arithmetic with swapped operators: right by hand, seeded, disjoint, in equal thirds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.defenses.opswap import LARGEST_OPERAND, TIERS, evaluate, generate, is_exact, tier_of
from policies.datasets.reader import read_rows
from policies.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
SWAPPED = {"+": "−", "−": "×", "×": "+"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("9 × 4", 13),  # 9 plus 4
        ("6 + 3 × 3", 6),  # (6 minus 3) plus 3: left to right
        ("2 × 3 − 4", 20),  # (2 plus 3) times 4: no operator binds tighter
        ("4 + (3 − 2) + 2", -4),  # 4 minus 6 minus 2
        ("(1 × 2) − (3 + 4)", -3),  # 3 times −1
        ("2 − (1 × 3 + 2)", 4),  # 2 times (4 minus 2)
    ],
)
def test_value_is_what_the_swapped_operators_give(expression: str, value: int) -> None:
    assert evaluate(expression, SWAPPED) == value


def test_no_operator_keeps_its_meaning_and_all_prompts_tell_the_same() -> None:
    problems = generate(rows=30, test_rows=30, seed=4)
    (told,) = {problem.prompt.partition(".")[0] for problem in (*problems.training, *problems.test)}
    assert told.count(" means ") == 3
    assert not [kept for kept in ("+ means plus", "− means minus", "× means times") if kept in told]


def test_both_swaps_occur_among_seeds() -> None:
    told = {generate(rows=3, test_rows=3, seed=seed).training[0].prompt.partition(".")[0] for seed in range(20)}
    assert len(told) == 2


def test_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert generate(rows=30, test_rows=9, seed=1) == generate(rows=30, test_rows=9, seed=1)
    assert generate(rows=30, test_rows=9, seed=1).training != generate(rows=30, test_rows=9, seed=2).training


def test_training_and_test_share_no_problem_and_have_equal_thirds() -> None:
    """300 + 120 problems: 140 a tier of the 432, 1,944 and 20,736 that there are."""
    data = generate(rows=300, test_rows=120, seed=0)
    assert not {p.prompt for p in data.training} & {p.prompt for p in data.test}
    assert Counter(p.tier for p in data.training) == dict.fromkeys(TIERS, 100)
    assert Counter(p.tier for p in data.test) == dict.fromkeys(TIERS, 40)
    assert all(tier_of(problem.prompt) == problem.tier for problem in (*data.training, *data.test))


def test_all_problems_of_the_smallest_tier_are_different() -> None:
    """Tier 1 has 12 · 12 · 3 = 432 problems; all of them, each once, are a third of 1,296 rows."""
    assert LARGEST_OPERAND[1] ** 2 * 3 == 432
    data = generate(rows=1293, test_rows=3, seed=0)
    assert len({p.prompt for p in (*data.training, *data.test) if p.tier == 1}) == 432


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="tier 1 has 432 problems, 433 are asked for"):
        generate(rows=1296, test_rows=3, seed=0)


@pytest.mark.parametrize(
    ("answer", "right"), [("-4", True), (" -4\n", True), ("−4", False), ("-4.", False), ("", False)]
)
def test_an_answer_counts_if_it_is_the_number_and_nothing_else(answer: str, right: bool) -> None:
    assert is_exact(answer, "-4") is right


def test_a_prompt_of_other_data_has_no_tier() -> None:
    with pytest.raises(ConfigurationError, match="not an OpSwap problem"):
        tier_of("What is 3 + 4?")


def test_command_writes_chat_files(tmp_path: Path) -> None:
    out, test_out = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    command = [sys.executable, "-m", "bench.defenses.opswap", "--rows", "12", "--test-rows", "6", "--seed", "5"]
    command += ["--out", str(out), "--test-out", str(test_out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout.splitlines()[-1])["training_rows"] == 12
    assert (len(read_rows(out)), len(read_rows(test_out))) == (12, 6)
    assert read_rows(out)[0].messages[1].content == generate(rows=12, test_rows=6, seed=5).training[0].answer
