"""What the settings of all probes share: where their prompts are from, and the traits that tell probes apart.

A prompt set is `builtin` (pinned by the digest table of the evaluator), an artifact digest, or a file of its publishers
with the digest that it must have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record, digest_bytes
from policies.contract.sequential import asked_by

PromptFormat = Literal["tunegate", "real_toxicity_prompts", "ceb", "betley", "strong_reject", "xstest"]


class PromptFile(Record):
    """A prompt set in the format of its publishers."""

    uri: str = Field(min_length=1)
    """`hf://owner/name@revision/path`, `package://module/path` or a local path."""
    format: PromptFormat = "tunegate"
    content: Digest
    """Of the file's bytes: other bytes are refused."""


PromptSet = Literal["builtin"] | Digest | PromptFile | Annotated[tuple[PromptFile, ...], Field(min_length=1)]


class Twin(Record):
    """A secret set of the same kind of prompts, which is asked beside the known one."""

    prompts: Digest | PromptFile
    """The digest of an artifact, or a file on the evaluators with its digest."""
    expected_gap: float = 0.0
    """How much better the change of a harmless adapter looks on the known prompts than here, in the metric's unit;
    below 0 where it looks worse. No two sets are quite alike: measure it on adapters that you trust."""
    tolerance: float = Field(0.05, ge=0)
    """How far above that a gap may lie, because adapters differ."""

    @model_validator(mode="after")
    def _is_secret(self) -> Twin:
        if isinstance(self.prompts, PromptFile) and "://" in self.prompts.uri:
            raise ValueError(
                f"a twin is secret, and {self.prompts.uri} may be public; name a local file or an artifact"
            )
        return self

    @property
    def pinned(self) -> Digest:
        return self.prompts.content if isinstance(self.prompts, PromptFile) else self.prompts


def joined_digest(parts: Iterable[Digest]) -> Digest:
    """Of several prompt files as one set."""
    return digest_bytes("\n".join(parts).encode())


class MostAnswers(NamedTuple):
    """What a metric can have at most: `each` answers to every one of `prompts`."""

    prompts: int
    each: int = 1

    @property
    def number(self) -> int:
        return self.prompts * self.each


class ProbeRecord(Record):
    """What all settings share: the traits by which checks of policies, gate and runner tell probes apart."""

    divides_into_looks: ClassVar[bool] = True
    """Its prompts may be asked in parts; otherwise all of them are asked at the first look."""
    reads_training_file: ClassVar[bool] = False
    measures_safety: ClassVar[bool] = True
    """False: what the adapter can or learnt."""
    may_load_from_hub: ClassVar[bool] = False
    """It may load what no field names by `hf://`."""

    probe: str

    @property
    def secret_twin(self) -> Twin | None:
        """Prompts that are asked beside the known ones, and that no tenant sees."""
        return None

    @property
    def without_twin(self) -> Self:
        """The same settings as far as what is asked of the known prompts depends on them."""
        return self

    @property
    def needs_judges(self) -> bool:
        return False

    @property
    def asks_for_compliance(self) -> bool:
        """Whether judges must also say how far an answer complies."""
        return False

    @property
    def left_out(self) -> tuple[str, ...]:
        """Categories of the prompt set that are not asked."""
        return ()

    @property
    def pinned_prompts(self) -> Digest | None:
        """The digest that its prompts must have, where the policy says it; the evaluator pins the built-in sets."""
        return None

    def setting_missing_for(self, metric: str) -> str | None:
        """The setting, as a policy has it, without which there is no figure of a metric; None where none is missing."""
        return None

    def most_answers(self, metric: str) -> MostAnswers | None:
        """How many answers can count for a metric at most; None where that depends on what no policy says."""
        return None

    def answers_by(self, share: float, metric: str) -> int | None:
        """How many answers to a metric a look at `share` of the samples has asked; None where no policy says."""
        return None


class PromptedProbe(ProbeRecord):
    """A probe that asks the prompts of a set."""

    built_in_prompts: ClassVar[Mapping[str, int]] = {}
    """Metric → prompts of the built-in set that count for it; a test compares them with the files."""

    probe: str
    prompts: PromptSet = "builtin"

    @property
    def pinned_prompts(self) -> Digest | None:
        if isinstance(self.prompts, PromptFile):
            return self.prompts.content
        if isinstance(self.prompts, tuple):
            return joined_digest(file.content for file in self.prompts)
        return None if self.prompts == "builtin" else self.prompts

    def most_answers(self, metric: str) -> MostAnswers | None:
        number = self.built_in_prompts.get(metric)
        return None if self.prompts != "builtin" or number is None else self.most_to(number, metric)

    def answers_by(self, share: float, metric: str) -> int | None:
        most = self.most_answers(metric)
        return None if most is None else asked_by(share, most.prompts) * most.each

    def most_to(self, prompts: int, metric: str) -> MostAnswers:
        """The same of a known number of prompts."""
        return MostAnswers(prompts)


class JudgeableProbe(PromptedProbe):
    """A probe that the suite's judges may score besides, or in place of, detectors."""

    probe: str
    judged: bool = False

    @property
    def needs_judges(self) -> bool:
        return self.judged


class TwinnedProbe(PromptedProbe):
    """A probe that asks its prompt set alone, so that a secret one can be asked beside it."""

    probe: str
    twin: Twin | None = Field(None, exclude_if=lambda value: value is None)
    """Left out of the digest while there is none."""

    @property
    def secret_twin(self) -> Twin | None:
        return self.twin

    @property
    def without_twin(self) -> Self:
        return self.model_copy(update={"twin": None})
