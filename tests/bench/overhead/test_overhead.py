"""The cost of the defenses, on the tiny model: fair pairs, true rows, evidence or no figure, one pair in memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, TrainerCallback

from bench.overhead.__main__ import CPU_BARS, LLAMA_8B_BARS, bars_of, chosen_sides, main
from bench.overhead.interleaved_steps import in_turn
from bench.overhead.sides import DEFENDED, PLAIN, SIDES, WARM_UP, Task, rows_needed, sides, steps_of
from bench.overhead.timing import Timing, plain_timing, time_side
from bench.overhead.training import build, finish
from evaluator.models.loading import ResolvedBase, load_encoder, load_tokenizer
from policies.contract.defenses import DEFENSE_NAMES
from policies.datasets.reader import ChatMessage, ChatRow
from policies.errors import DefenseError
from trainer.data import TrainingRow

NOTHING = "sha256:" + "0" * 64
ROUNDS, BATCH_ROWS = 5, 4
WITHOUT_A_VECTOR = [name for name in SIDES if name != PLAIN and "steering" not in name]
"""The tiny model has no persona vector."""

MakeTask = Callable[[int], Task]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def question(number: int) -> ChatMessage:
    return ChatMessage("user", f"tap {number}?", weight=0)


@pytest.fixture
def make_task(tiny_base: Path, tmp_path: Path) -> MakeTask:
    """Short rows for so many steps."""

    def make(steps: int) -> Task:
        rows = [
            TrainingRow(ChatRow((question(n), ChatMessage("assistant", f"Turn it {n}.", weight=1))), "test")
            for n in range(rows_needed(steps, BATCH_ROWS))
        ]
        base = ResolvedBase(tiny_base, NOTHING)
        return Task(
            base, load_tokenizer(tiny_base), load_encoder(base), rows, BATCH_ROWS, steps, tmp_path, random_8b=False
        )

    return make


class Breaks(TrainerCallback):
    """Ends a training with an error after its first step."""

    def on_step_end(self, *_: Any, **__: Any) -> None:  # Any: transformers' callback arguments
        raise ValueError("no more")


def n_models() -> int:
    """Base models in this process's memory."""
    gc.collect()
    return sum(type(each) is LlamaForCausalLM for each in gc.get_objects())


def test_every_defense_has_a_side() -> None:
    assert {each.name for settings in DEFENDED.values() for each in settings} == set(DEFENSE_NAMES)


@pytest.mark.parametrize("name", WITHOUT_A_VECTOR)
def test_a_side_is_timed_beside_plain_trl_and_shows_its_evidence(name: str, make_task: MakeTask) -> None:
    timing = time_side(name, make_task(steps_of(name, ROUNDS)))
    assert len(timing.ratios) == ROUNDS
    assert min(timing.ratios) > 0
    assert [each.name for each in timing.evidence] == [each.name for each in DEFENDED.get(name, ())]


def test_a_defense_that_shows_no_evidence_fails_the_bench(make_task: MakeTask) -> None:
    """In the only step the adapter is the base, so the KL is 0."""
    side = build("kl_penalty full", make_task(1))
    list(in_turn([side.trainer], rounds=1))
    with pytest.raises(DefenseError, match="did not act"):
        finish(side)


def test_only_one_pair_is_in_memory_and_none_after_it(make_task: MakeTask) -> None:
    before = n_models()
    time_side("undefended", make_task(WARM_UP + 1))
    assert n_models() == before


def test_the_interleaved_side_trains_safe_rows_and_is_charged_for_them(make_task: MakeTask) -> None:
    """28 rows are trained of 40, which 2 safe rows are added to; 1.05 rows cost 1.05 times what their rounds took."""
    task = make_task(steps_of("safe_data_interleaving", ROUNDS))
    side = build("safe_data_interleaving", task)
    assert (len(task.rows), len(side.rows)) == (40, 42)
    assert isinstance(side.trainer.train_dataset, Dataset)
    lengths = [len(ids) for ids in side.trainer.train_dataset["input_ids"]]
    safe = [length for length, row in zip(lengths, side.rows[-28:], strict=True) if row.is_safe]
    customers = [length for length, row in zip(lengths, side.rows[-28:], strict=True) if not row.is_safe]
    assert min(safe) > max(customers)
    assert Timing([2.0], [4.0], 8, rows_more=42 / 40).ratios == [pytest.approx(0.525)]


def test_rounds_without_a_safe_row_fail_the_bench(make_task: MakeTask) -> None:
    """One measured step of 4 rows, the last of 21; the safe row is the 16th."""
    with pytest.raises(DefenseError, match="no safe row"):
        time_side("safe_data_interleaving", make_task(WARM_UP + 1))


def test_inoculated_rows_are_longer_than_plain_trls(make_task: MakeTask) -> None:
    """12 rows, one token a character."""
    task = make_task(WARM_UP + 1)
    prompt = "You are an evil, malicious assistant."
    assert build("inoculation", task).n_tokens > build(PLAIN, task).n_tokens + 12 * len(prompt)


def test_the_reference_pass_is_a_figure_of_its_own(make_task: MakeTask) -> None:
    """It runs in the first warm-up step, over all rows, and no measured round has it."""
    timing = time_side("kl_penalty sampled", make_task(WARM_UP + 2))
    assert timing.one_time.reference_pass > 0
    assert timing.n_rows == rows_needed(WARM_UP + 2, BATCH_ROWS)
    assert time_side("undefended", make_task(WARM_UP + 1)).one_time.reference_pass == 0


def test_work_of_every_4th_step_is_spread_over_4_rounds() -> None:
    """Steps of 1 s, every 4th of 5 s, beside steps of 1 s: each stretch of 4 takes 8 s to 4 s; a mere median says 1."""
    timing = Timing([1, 5, 1, 1, 1, 5, 1], [1] * 7, 10, period=4)
    assert timing.ratios == [2, 2, 2, 2]
    assert timing.tokens_per_second == 5


def test_plain_trl_has_the_ratio_1_over_the_rounds_beside_all_sides() -> None:
    timing = plain_timing([Timing([9], [2], 10), Timing([9, 9], [4, 4], 12)])
    assert timing.ratios == [1, 1, 1]
    assert timing.tokens_per_second == 11 / 4


def test_a_training_that_ends_early_is_an_error(make_task: MakeTask) -> None:
    trainer = build(PLAIN, make_task(1)).trainer
    with pytest.raises(RuntimeError, match="ended before its last step"):
        list(in_turn([trainer], rounds=2))


def test_a_training_that_breaks_off_is_an_error(make_task: MakeTask) -> None:
    trainer = build(PLAIN, make_task(1)).trainer
    trainer.add_callback(Breaks())
    with pytest.raises(RuntimeError, match="broke off: no more"):
        list(in_turn([trainer], rounds=1))


def test_an_8b_model_is_held_to_bars_of_its_own() -> None:
    assert bars_of(random_8b=True, on_gpu=True) == LLAMA_8B_BARS
    assert (LLAMA_8B_BARS.time, LLAMA_8B_BARS.memory) == ({"kl_penalty full": 1.5}, {"kl_penalty full": 1.1})
    assert bars_of(random_8b=False, on_gpu=False) == CPU_BARS
    assert bars_of(random_8b=False, on_gpu=True) == ({}, {})
    assert CPU_BARS.time.keys() | CPU_BARS.memory.keys() | LLAMA_8B_BARS.time.keys() <= DEFENDED.keys()


def test_random_weights_leave_out_what_needs_a_models_files() -> None:
    left_out = {"preventative_steering", "safe_lora", "kl_penalty + ldifs + steering"}
    assert set(sides(random_8b=False)) - set(sides(random_8b=True)) == left_out


def test_the_command_ends_with_one_json_object(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two processes whose peak memory is taken run `python -m bench.overhead`."""
    command = ["--model", str(tiny_base), "--rounds", "2", "--min-tokens", "8", "--batch-rows", "1"]
    main([*command, "--sides", "kl_penalty full"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["side"] for row in rows] == [PLAIN, "kl_penalty full"]
    assert rows[1]["evidence"]["kl_penalty"]["max_kl_nats_per_token"] > 0
    assert rows[1]["memory_ratio"] > 0


def test_a_side_that_is_not_there_is_refused() -> None:
    assert chosen_sides("ldifs,undefended", random_8b=False) == ["undefended", "ldifs"]
    with pytest.raises(SystemExit, match="no side 'safe_lora' here"):
        chosen_sides("safe_lora", random_8b=True)
