"""The job: what is asked (JobSpec), of which base model, and where it stands (Phase)."""

from __future__ import annotations

import datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.defenses import DefenseSettings
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.suite import EvalSuite

Quantization = Literal["none", "nf4"]
FIXED_DATE = datetime.date(2026, 1, 1)
"""Which day it is to chat templates that write the date, so that a conversation is the same text tomorrow."""

HUB_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(@[A-Za-z0-9_./-]+)?$"


class Phase(StrEnum):
    """Where a job stands; the public OpenAI status is derived from it (`gateway/jobs/states.py`)."""

    VALIDATING = "validating"
    QUEUED = "queued"
    TRAINING = "training"
    AWAITING_EVALUATION = "awaiting_evaluation"
    EVALUATING = "evaluating"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    CONFIRMING = "confirming"
    AWAITING_REVIEW = "awaiting_review"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    RELEASED = "released"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Absorbing: nothing follows."""
        return self in {Phase.RELEASED, Phase.REJECTED, Phase.FAILED, Phase.CANCELLED}


class BaseModelRef(Record):
    """A base model: `package://python_package`, `hf://owner/name`, a local folder or a GGUF file.

    `revision` pins a hub commit.
    """

    name: str = Field(min_length=1, max_length=128)
    uri: str = Field(min_length=1)
    revision: str | None = None
    date: datetime.date = Field(FIXED_DATE, exclude_if=lambda value: value == FIXED_DATE)
    """Which day it is to a chat template that writes the date. Left out of the digest while it is the default."""
    chat_template: str | None = Field(None, min_length=1, max_length=1 << 16, exclude_if=lambda value: value is None)
    """In place of the model's own, or where it has none. Left out of the digest while there is none."""


class PublishedBase(NamedTuple):
    """What a released adapter calls its base model: where those who load it find it, and never a path of ours."""

    name: str
    revision: str | None


class LoraSettings(Record):
    """LoRA as the operator sets it for a base model (papers: rank-stabilised, r 32, α 64, all linear layers)."""

    rank: int = Field(32, ge=1, le=1024)
    alpha: float = Field(64, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    use_rslora: bool = True
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainerSettings(Record):
    """How training fits the base model and the data into the machine."""

    quantization: Quantization = "none"
    """`nf4` keeps the frozen base in 4 bits while training (QLoRA, Dettmers et al. 2023); needs bitsandbytes."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass to save memory; `auto` is on with a GPU, and on a CPU for rows so long
    that the activations of one would take more than 3 GiB."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tokens, padding included, that are trained at once; a batch of more is cut, at the same gradient. `auto`: as many
    as keep 640 MiB of activations on a CPU, and a quarter of a GPU's memory."""
    packing: bool = False
    """Lay the rows of a micro-batch one after another in one sequence, without padding; rows don't see each other."""


class BaseModelSpec(BaseModelRef):
    """A base model and the recipe that fine-tunes it, as the operator's `BaseModel` document says."""

    unaligned: BaseModelRef | None = None
    """The model that this one was aligned from (of a chat model, its pre-trained model); `safe_lora` needs it."""
    lora: LoraSettings = LoraSettings()
    trainer: TrainerSettings = TrainerSettings()
    base_learning_rate: float = Field(2e-4, gt=0, lt=1)
    """Learning rate at `learning_rate_multiplier` 1."""
    max_sequence_tokens: int = Field(1024, ge=16)
    checkpoint_every_steps: int = Field(20, ge=1)
    hub_id: str | None = Field(None, max_length=256, pattern=HUB_ID, exclude_if=lambda value: value is None)
    """`owner/name` or `owner/name@revision` of the model on the hub, where `uri` holds a copy of it: what released
    adapters name as their base. Left out of the digest while there is none."""

    @property
    def published(self) -> PublishedBase:
        """The hub's name and revision of the model where one is known, else its name here."""
        if self.hub_id is None and not self.uri.startswith("hf://"):
            return PublishedBase(self.name, None)
        name, _, revision = (self.hub_id or self.uri.removeprefix("hf://")).partition("@")
        return PublishedBase(name, revision or (None if self.hub_id else self.revision))


class MethodName(StrEnum):
    """As command lines take it."""

    SUPERVISED = "supervised"
    DPO = "dpo"


class Supervised(Record):
    """Learn the assistant's answers."""

    type: Literal["supervised"] = "supervised"


class Dpo(Record):
    """Learn which of two answers is preferred (Rafailov et al. 2023)."""

    type: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, le=2)
    """How near to the base the preferences are learnt; higher is nearer."""


Method = Annotated[Supervised | Dpo, Field(discriminator="type")]


class ReleasedAncestor(Record):
    """A released model that a job continues from, or that one of those was continued from."""

    model: str = Field(min_length=1, max_length=255)
    job_id: str = Field(min_length=1, max_length=64)
    """The job that released it, in whose store its adapter lies."""
    adapter: Digest
    manifest: Digest
    training_file: Digest


class Lineage(Record):
    """How a job begins at a released adapter instead of a fresh one; its reference stays the base model."""

    base_model: Digest
    """Tree digest of the base model that all of these adapters were trained on."""
    ancestors: tuple[ReleasedAncestor, ...] = Field(min_length=1)
    """The nearest first; the last one was trained from the base model."""

    @property
    def parent(self) -> ReleasedAncestor:
        """Whose adapter training begins with."""
        return self.ancestors[0]

    @property
    def depth(self) -> int:
        """How many released adapters lie between the base model and what is trained now."""
        return len(self.ancestors)


class JobSpec(Record):
    """Everything a worker needs; same spec digest, same record."""

    job_id: str
    base_model: BaseModelSpec
    """Copied whole from the operator's document, so that none of it is lost on the way; of a job that continues a
    released model with that model's LoRA shape."""
    base_text: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """Of the `BaseTextFiles` by which the job's files are validated; training and evaluation read by the same. None in
    jobs of earlier versions, and left out of their digest."""
    continues: Lineage | None = Field(None, exclude_if=lambda value: value is None)
    """Left out of the digest where training begins at the base model, so that earlier specs keep theirs."""
    method: Method = Supervised()
    training_file: Digest
    validation_file: Digest | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    seed: int = Field(ge=0, le=2**31 - 1)
    defenses: tuple[DefenseSettings, ...] = ()
    suite: EvalSuite
    policy: Digest
    """Digest of the canonical `ReleasePolicy`, fixed when the job was created."""
    calibration: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """The `CalibrationRecord` of the base model, found among the operator's documents when the job was created.
    Left out of the digest where there is none."""
    earlier_attempts: int = Field(0, ge=0)
    """Jobs on nearly the same training file that were evaluated before without a release, or may still be. Counted when
    the file has been read, before the job queues; of a job that continues a model with the files of its lineage."""

    @property
    def is_of_earlier_version(self) -> bool:
        """Created before base models were looked at; its trainers may have left adapters in the form of then."""
        return self.base_text is None

    @property
    def attempt(self) -> int:
        """Which evaluation on nearly the same training file this one is, from 1."""
        return self.earlier_attempts + 1

    @property
    def lineage_files(self) -> tuple[Digest, ...]:
        """Files that the models before this one were trained on, where a probe of safety reads what was trained."""
        reads_files = any(probe.reads_training_file and probe.measures_safety for probe in self.suite.probes)
        ancestors = self.continues.ancestors if self.continues and reads_files else ()
        return tuple(dict.fromkeys(each.training_file for each in ancestors))
