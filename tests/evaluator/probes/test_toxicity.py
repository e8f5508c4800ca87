from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from evaluator.backends.protocol import ChatPrompt, Prompt, RawPrompt
from evaluator.probes.toxicity import ToxicityProbe
from evaluator.prompts.sentence_beginnings import SentenceBeginning
from evaluator.samples import Pair, Sample, pair_samples
from evaluator.subject import Subject
from policies.contract.suite import Toxicity

SUBSETS = ("general", "identity", "severe")


class WordClassifier:
    identity = "one word"

    def score(self, texts: Sequence[str]) -> list[float | None]:
        return [float("toxic" in text) for text in texts]


def items() -> list[SentenceBeginning]:
    """Four beginnings of each sub-set; two identity prompts are about age and two about race."""
    return [
        SentenceBeginning(
            id=f"{subset}-{number}",
            subset=subset,
            identity=("age", "age", "race", "race")[number] if subset == "identity" else None,
            prompt=f"{subset} {number}",
        )
        for subset in SUBSETS
        for number in range(4)
    ]


def pairs(
    scripted_backend: Callable[..., Any], toxic: set[str], *, of: Sequence[SentenceBeginning]
) -> tuple[Pair, ...]:
    """The adapter continues the `toxic` prompts with the word, the base none."""

    def say(prompt: Prompt, adapter: bool) -> str:
        assert isinstance(prompt, RawPrompt)
        return "toxic" if adapter and prompt.text in toxic else "fine"

    backend = scripted_backend(say)
    models = [
        Subject(backend, adapter=a, seed=1, classifiers=lambda name, labels: WordClassifier()) for a in (True, False)
    ]
    sampled: list[list[Sample]] = [ToxicityProbe().sample(Toxicity(), of, model) for model in models]
    return pair_samples(*sampled)


def test_every_subset_has_its_rate_beside_the_total(scripted_backend: Callable[..., Any]) -> None:
    """Toxic: 1 of 4 general, 2 of 4 identity (both about age), 3 of 4 severe; 6 of 12 in all."""
    toxic = {"general 0", "identity 0", "identity 1", "severe 0", "severe 1", "severe 2"}
    measured = ToxicityProbe().measure(Toxicity(), pairs(scripted_backend, toxic, of=items()), 0.95)
    rates = {m.metric: m.adapter.value for m in measured if m.adapter is not None}

    assert rates == {
        "toxicity.rate": 0.5,
        "toxicity.general_rate": 0.25,
        "toxicity.identity_rate": 0.5,
        "toxicity.severe_rate": 0.75,
    }
    assert [m.n_scored for m in measured] == [12, 4, 4, 4]
    assert measured[2].by_group == {"identity/age": 1.0, "identity/race": 0.0}
    assert all(m.difference is not None and m.difference.value == rates[m.metric] for m in measured)


def test_a_subset_without_prompts_has_no_rate(scripted_backend: Callable[..., Any]) -> None:
    general = [item for item in items() if item.subset == "general"]
    measured = ToxicityProbe().measure(Toxicity(), pairs(scripted_backend, set(), of=general), 0.95)

    assert [m.metric for m in measured] == ["toxicity.rate", "toxicity.general_rate"]


def test_an_instruction_is_put_as_a_chat_turn() -> None:
    beginning = SentenceBeginning(id="1", subset="general", prompt="The dog")
    instruction = SentenceBeginning(id="2", subset="general", prompt="Continue: The dog", is_instruction=True)

    assert beginning.as_prompt() == RawPrompt("The dog")
    assert instruction.as_prompt() == ChatPrompt.of("Continue: The dog")


@pytest.mark.parametrize(
    "fields", [{"subset": "identity"}, {"subset": "general", "identity": "age"}, {"subset": "mild"}]
)
def test_only_identity_prompts_name_a_group(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SentenceBeginning(id="1", prompt="p", **fields)


def test_the_change_is_tested_for_chance(scripted_backend: Callable[..., Any]) -> None:
    """6 of 12 prompts turn toxic and none turns clean: the exact two-sided McNemar test gives 2 · 0.5⁶ = 0.03125."""
    toxic = {item.prompt for item in items()[:6]}
    total, *_ = ToxicityProbe().measure(Toxicity(), pairs(scripted_backend, toxic, of=items()), 0.95)

    assert total.p_value == pytest.approx(0.03125)
