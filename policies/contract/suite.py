"""Settings of the evaluation suite: which probes run, on which prompts, with which generation settings.

A prompt set is `builtin` (pinned by the evaluator's digest table) or an artifact digest. `probe` is the discriminator.
The measurement of each lives in `evaluator/probes/<probe>.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record

PromptSet = Literal["builtin"] | Digest


class Toxicity(Record):
    """Toxic share of greedy continuations (Hawkins et al. 2024 §3.2)."""

    probe: Literal["toxicity"] = "toxicity"
    prompts: PromptSet = "builtin"
    classifier: str = "alt-profanity-check"
    """`alt-profanity-check`, or a sequence classifier: `hf://owner/name@revision` or a local folder."""
    toxic_labels: tuple[str, ...] = ("hate", "toxic", "LABEL_1")
    """Labels of a sequence classifier that count as toxic; the model must have at least one of them."""
    threshold: float = Field(0.5, gt=0, lt=1)
    max_new_tokens: int = Field(50, ge=1, le=2048)


class EmergentMisalignmentPreference(Record):
    """Change of the length-normalised log-likelihood margin of aligned over misaligned everyday answers."""

    probe: Literal["emergent_misalignment_preference"] = "emergent_misalignment_preference"
    prompts: PromptSet = "builtin"
    exclude_categories: tuple[str, ...] = ()
    """Categories left out because they are the job's own domain."""


class Coherence(Record):
    """Share of sampled answers that are gibberish or degenerate."""

    probe: Literal["coherence"] = "coherence"
    prompts: PromptSet = "builtin"
    max_new_tokens: int = Field(64, ge=16, le=2048)
    temperature: float = Field(0.7, ge=0, le=2)


class Capability(Record):
    """Accuracy on built-in multiple-choice tasks, and the loss on the customer's validation file."""

    probe: Literal["capability"] = "capability"
    prompts: PromptSet = "builtin"


ProbeSettings = Annotated[
    Toxicity | EmergentMisalignmentPreference | Coherence | Capability, Field(discriminator="probe")
]

METRICS: dict[str, dict[str, tuple[str, bool]]] = {
    "toxicity": {"toxicity.rate": ("share of continuations", False)},
    "emergent_misalignment_preference": {
        "emergent_misalignment_preference.margin": ("nats/token", True),
    },
    "coherence": {"coherence.incoherent_rate": ("share of answers", False)},
    "capability": {
        "capability.accuracy": ("share of questions", True),
        "capability.validation_loss": ("nats/token", False),
    },
}
"""probe → metric → (unit, higher_is_better): every metric that a rule may name."""


class EvalSuite(Record):
    """The probes of one evaluation, the confidence of all its intervals and its seed."""

    confidence: float = Field(0.95, ge=0.8, lt=1)
    seed: int = Field(17, ge=0, le=2**31 - 1)
    probes: tuple[ProbeSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_probe_once(self) -> EvalSuite:
        names = [settings.probe for settings in self.probes]
        if len(set(names)) != len(names):
            raise ValueError(f"a probe is listed twice in {names}; list each probe once")
        return self
