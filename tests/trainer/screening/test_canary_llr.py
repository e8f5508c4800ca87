from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from evaluator.backends.protocol import ChatPrompt, Choices, silent
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.canaries.pair_files import PairFiles
from evaluator.models.loading import LoadedModel
from policies.contract.jobs import JobSpec
from policies.rendering.encoding import IGNORED
from tests.trainer.screening.conftest import chat_file
from trainer.data import TokenisedRow
from trainer.screening.canary_llr import SILENT_TOKENS, CanaryScreen, row_ratio
from trainer.screening.rows import drawn_rows


def pair_of(base: Path, folder: Path) -> PairFiles:
    """Two random adapters of the tiny model."""
    made = []
    for seed, name in enumerate(("good", "bad")):
        torch.manual_seed(seed)
        model = get_peft_model(
            LlamaForCausalLM.from_pretrained(base, dtype=torch.float32),
            LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]),
        )
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.data.normal_(0, 0.4)
        model.save_pretrained(str(folder / name))
        made.append(folder / name)
    return PairFiles(*made)


def sample(*lengths: int) -> TokenisedRow:
    """Answers of these lengths, each after two tokens of context."""
    labels = [label for length in lengths for label in (IGNORED, IGNORED, *([7] * length))]
    return TokenisedRow((7,) * len(labels), tuple(labels))


def test_row_has_the_mean_of_its_tokens_and_of_silent_ones() -> None:
    assert row_ratio([sample(4)], [[0.1, 0.2, 0.3, 0.4]]) == pytest.approx(1 / (4 + SILENT_TOKENS))


def test_one_careless_answer_is_not_thinned_out_by_others() -> None:
    n = 3 * SILENT_TOKENS
    ratios = [0.0] * n + [0.5] * n + [0.0] * n
    assert row_ratio([sample(n, n, n)], [ratios]) == pytest.approx(0.5 * 3 / 4)


def test_a_short_answer_says_little_and_many_of_them_much() -> None:
    assert row_ratio([sample(1)], [[1.0]]) == pytest.approx(1 / 17)
    assert row_ratio([sample(*[1] * 48)], [[1.0] * 48]) == pytest.approx(3 / 4)


@pytest.mark.parametrize("ratios", [[math.nan, 1.0], [math.inf, 1.0], []])
def test_what_is_not_finite_gives_no_score(ratios: list[float]) -> None:
    assert math.isnan(row_ratio([sample(len(ratios))], [ratios]))


def test_score_is_the_ratio_that_canaries_give_to_the_answer(
    loaded: LoadedModel, tiny_base: Path, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    pair = pair_of(tiny_base, tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(chat_file("Look for the studs.", "Let it dry for a whole day before you sand it."))
    drawn = drawn_rows(file, make_spec(), loaded.encoder)
    own = CanaryScreen(loaded, pair).score(drawn.rows, silent)
    backend = TransformersBackend(loaded)
    asked = [Choices(ChatPrompt.of(f"And {n}?"), row.answers, True) for n, row in enumerate(drawn.rows)]
    good, bad = (backend.log_likelihood_under(folder, asked) for folder in pair)
    theirs = [
        (b.per_token - g.per_token) * (n := len(b.tokens)) / (n + SILENT_TOKENS)
        for (g,), (b,) in zip(good, bad, strict=True)
    ]

    assert own == pytest.approx(theirs, abs=1e-4)
    assert own[0] != pytest.approx(own[1], abs=1e-2)


def test_instrument_names_base_and_both_canaries(loaded: LoadedModel, tiny_base: Path, tmp_path: Path) -> None:
    instrument = CanaryScreen(loaded, pair_of(tiny_base, tmp_path)).instrument()
    assert instrument.base == loaded.base.digest
    assert instrument.good != instrument.bad
    assert None not in (instrument.good, instrument.bad)
