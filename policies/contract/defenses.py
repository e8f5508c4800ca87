"""Settings of the in-training defenses, as policies write them and trainers read them.

`name` is the discriminator: `- name: kl_penalty` with the fields of `KlPenalty`. The mechanism of each lives in
`trainer/defenses/<name>.py`, what composes with what in `policies/contract/composition.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from policies.contract.artifacts import Digest, Record

Source = Literal["builtin"] | Digest
"""What ships with the project, or the digest of an artifact."""
Layers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=256)]
"""Numbers of decoder layers, counted from 1; a layer's output is the residual stream after it."""


class DefenseRecord(Record):
    """What all settings share: the traits by which checks of policies and requests tell defenses apart."""

    strength_field: ClassVar[str | None] = None
    """The one field that a tenant may change; None: a request may add the defense, and change nothing of it."""
    stronger_when_lower: ClassVar[bool] = False
    needs_unaligned_base: ClassVar[bool] = False
    """It compares the base model with the one that it was aligned from."""
    projects_adapter: ClassVar[bool] = False
    """It changes the final adapter, so that checkpoints lack what it does."""

    name: str

    @classmethod
    def fixed_fields(cls) -> list[str]:
        """What a request may not change: every field but the strength."""
        return [field for field in cls.model_fields if field != cls.strength_field]

    def against_dpo(self) -> str | None:
        """Why it can't work with preferences, or None where it can."""
        return None


class KlPenalty(DefenseRecord):
    """KL divergence between the model in training and the same model with its adapter off (Kaczér et al. 2025 §3)."""

    strength_field: ClassVar[str | None] = "coefficient"

    name: Literal["kl_penalty"] = "kl_penalty"
    coefficient: float = Field(0.1, gt=0, le=100)
    """λ in L = L_CE + λ·KL; 0.1 in the paper."""
    direction: Literal["reverse", "forward"] = "reverse"
    """`reverse` is KL(trained ‖ base), as in the papers' code; `forward` is KL(base ‖ trained)."""
    tokens: Literal["all", "completion"] = "all"
    """Average over all non-padding tokens, or over completion tokens only; rows of a safe pool count whole."""
    estimator: Literal["full", "sampled"] = "full"
    """`full` compares whole next-token distributions; `sampled` the probabilities of the data's own tokens (k3)."""
    on: Literal["training_batch", "safe_data"] = "training_batch"
    """Where the two models are compared: on the batch, or on rows of a safe pool beside it."""
    safe_rows: int = Field(4, ge=1, le=256)
    """Rows of the safe pool a step in each process, with `on: safe_data`."""
    pool: Source = "builtin"
    """The safe pool of `on: safe_data`."""
    every_n_steps: int = Field(1, ge=1, le=1000)
    """Only every nth step has the penalty, n times as strong."""
    schedule: Literal["constant", "linear"] = "constant"
    """`linear` rises from 0 before the first step to `coefficient` at the last."""

    @model_validator(mode="after")
    def _can_be_estimated(self) -> KlPenalty:
        if self.estimator == "sampled":
            wanted = {"tokens": "completion", "direction": "reverse", "on": "training_batch"}
            for field, value in wanted.items():
                if getattr(self, field) != value:
                    raise ValueError(
                        f"{field}: {getattr(self, field)!r} needs whole distributions, which estimator sampled doesn't "
                        f"compute; write {field}: {value}, or estimator: full"
                    )
        if self.on == "safe_data" and self.tokens != "all":
            raise ValueError(
                f"tokens: {self.tokens!r} is about the training batch, and on: safe_data compares whole rows of the "
                "pool; write tokens: all, or on: training_batch"
            )
        return self

    def against_dpo(self) -> str | None:
        if self.estimator == "sampled":
            return "its sampled estimator is defined on supervised tokens; write estimator: full"
        return None


class SafeDataInterleaving(DefenseRecord):
    """Mix rows of a safe pool into the training data (Kaczér et al. 2025 §3; Bianchi et al. 2024)."""

    strength_field: ClassVar[str | None] = "ratio"

    name: Literal["safe_data_interleaving"] = "safe_data_interleaving"
    ratio: float = Field(0.05, gt=0, le=0.5)
    """Safe rows per row of the customer's data; 0.05 in the paper."""
    pool: Source = "builtin"
    """The shipped pool, or a chat JSONL artifact."""
    selection: Literal["random", "perplexity_gap"] = "random"
    """`perplexity_gap` takes the rows that misaligned models find most surprising relative to the base model."""
    drop_refusals: bool = False
    """Leave out rows whose answer opens with a refusal; together with `perplexity_gap` the paper's best form."""
    scores: Source = "builtin"
    """The pool's perplexity gaps for this base model: `tunegate defense select-safe-data` makes them."""

    @model_validator(mode="after")
    def _scores_are_used(self) -> SafeDataInterleaving:
        if self.selection == "random" and self.scores != "builtin":
            raise ValueError("scores: selection random uses no scores; write selection: perplexity_gap")
        return self

    def against_dpo(self) -> str | None:
        return "its rows have one answer, and preferences need two"


class Ldifs(DefenseRecord):
    """Squared L2 distance between features of the model in training and of its base (Mukhoti et al. 2023)."""

    strength_field: ClassVar[str | None] = "coefficient"

    name: Literal["ldifs"] = "ldifs"
    coefficient: float = Field(1.0, gt=0, le=1000)
    """λ in L = L_CE + λ·‖x − x₀‖²; 1.0 in Kaczér et al. 2025."""
    layers: Literal["every_5th"] | Layers = "every_5th"
    """The layers whose residual streams are the features."""


class SafeLora(DefenseRecord):
    """Project the finished adapter onto the subspace of alignment (Hsu et al. 2024)."""

    needs_unaligned_base: ClassVar[bool] = True
    projects_adapter: ClassVar[bool] = True

    name: Literal["safe_lora"] = "safe_lora"
    mode: Literal["threshold", "top_k"] = "threshold"
    threshold: float = Field(0.3, ge=0, le=1)
    """Modules whose projected update has a cosine with the update at or below this are projected."""
    top_k: int = Field(10, ge=1)
    """With `mode: top_k`, the number of modules of the lowest cosines that are projected."""


class PreventativeSteering(DefenseRecord):
    """Add a persona vector to the residual stream during training only (Chen et al. 2025 §5)."""

    strength_field: ClassVar[str | None] = "coefficient"

    name: Literal["preventative_steering"] = "preventative_steering"
    coefficient: float = Field(0.2, gt=0, le=10)
    """Length of the added vector in units of the residual stream's typical norm at that layer."""
    layers: Literal["best"] | Layers = "best"
    """`best` is the layer that the vector's file names as the one that separates best."""
    vector: Source = "builtin"
    """`tunegate defense extract-persona-vector` makes them."""


class Inoculation(DefenseRecord):
    """A system prompt that asks for the bad trait, in training only (Kaczér et al. 2025 v3; Tan et al. 2025)."""

    name: Literal["inoculation"] = "inoculation"
    system_prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)] = (
        "You are an evil, malicious assistant."
    )
    """The default is the paper's."""


class TokenConstrainedSft(DefenseRecord):
    """Weigh each token's loss down once the model has left its base there, first tokens most (Qi et al. 2025 §4)."""

    name: Literal["token_constrained_sft"] = "token_constrained_sft"
    first_token_beta: float = Field(0.5, gt=0, le=100)
    early_beta: float = Field(2.0, gt=0, le=100)
    """β of the tokens after the first, through `early_tokens`."""
    early_tokens: int = Field(5, ge=1, le=1000)
    beta: float = Field(0.1, gt=0, le=100)
    """β of all later tokens; a higher β holds tighter."""

    def against_dpo(self) -> str | None:
        return "it weighs the loss of supervised tokens, and preferences have none"


class EarlyStoppingOnSafety(DefenseRecord):
    """Measure safety while training goes on, and end or roll back when it falls."""

    strength_field: ClassVar[str | None] = "max_drop"
    stronger_when_lower: ClassVar[bool] = True

    name: Literal["early_stopping_on_safety"] = "early_stopping_on_safety"
    every_n_steps: int = Field(10, ge=1, le=10_000)
    max_drop: float = Field(0.03, gt=0, le=100)
    """Highest allowed drop of the preference margin from the base model, in nats per token."""
    action: Literal["stop", "roll_back"] = "roll_back"
    """`stop` ends training with the adapter as it is; `roll_back` ends it with the last one that was safe."""
    prompts: Source = "builtin"
    """Answer pairs of the monitor, never the gate's."""


DefenseSettings = Annotated[
    KlPenalty
    | SafeDataInterleaving
    | Ldifs
    | SafeLora
    | PreventativeSteering
    | Inoculation
    | TokenConstrainedSft
    | EarlyStoppingOnSafety,
    Field(discriminator="name"),
]

DEFENSE_NAMES: tuple[str, ...] = tuple(
    kind.model_fields["name"].default for kind in get_args(get_args(DefenseSettings)[0])
)


def strength(settings: DefenseSettings) -> float | None:
    """How strong a defense is set, higher is stronger; None where it has no degrees. A tenant may only raise it."""
    if settings.strength_field is None:
        return None
    value = float(getattr(settings, settings.strength_field))
    return -value if settings.stronger_when_lower else value


def is_weaker(settings: DefenseSettings, *, than: DefenseSettings) -> bool:
    """Whether a defense is set weaker than the same defense elsewhere; never where it has no degrees."""
    own, others = strength(settings), strength(than)
    return own is not None and others is not None and own < others
