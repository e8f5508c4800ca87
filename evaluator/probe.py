"""What a probe is: it samples one model on pinned prompts, and measures adapter against base from paired samples.

Sampling needs the model and is cached for the base; measuring is pure. A probe never sees the gate, a rule or a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from evaluator.prompts.prompt_item import FileRow, PromptItem
from evaluator.samples import Pair, Sample
from evaluator.subject import Subject
from policies.contract.artifacts import Record
from policies.contract.evaluation import Measurement

SettingsT = TypeVar("SettingsT", bound=Record, contravariant=True)
ItemT = TypeVar("ItemT", bound=PromptItem, contravariant=True)


class Probe(Protocol[SettingsT, ItemT]):
    """One measurement. Subclass nothing: a probe is an object with these members, listed in `PROBES`."""

    name: ClassVar[str]
    version: ClassVar[str]
    """Raised whenever the same outputs could score differently."""
    item_type: ClassVar[type[PromptItem]]

    def instruments(self, settings: SettingsT, subject: Subject) -> tuple[str, ...]:
        """Identities of what scores depend on besides model, settings and prompts, e.g. a classifier's."""

    def sample(self, settings: SettingsT, items: Sequence[ItemT], subject: Subject) -> list[Sample]:
        """Run one model on every item."""

    def measure(self, settings: SettingsT, pairs: Sequence[Pair], confidence: float) -> tuple[Measurement, ...]:
        """Figures from the samples of adapter and base."""


@runtime_checkable
class AsksRows(Protocol):
    """A probe that asks rows of the job's files besides its prompt set, or without one."""

    # Any: settings of the probe, as in the table of probes
    def rows(self, settings: Any, subject: Subject) -> Sequence[FileRow]:
        """The rows that it asks, as items that `sample` takes."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A probe among whose instruments are some that come of the job's own files."""

    # Any: settings of the probe, as in the table of probes
    def constant_instruments(self, settings: Any, subject: Subject) -> tuple[str, ...]:
        """Its other instruments, which are the same whatever the job; no file is read for them."""


@runtime_checkable
class CountsSamples(Protocol):
    """A probe that has not exactly one sample an item, e.g. several answers to a prompt."""

    # Any: settings and items of the probe, as in the table of probes
    def n_samples(self, settings: Any, items: Sequence[Any], subject: Subject) -> int:
        """How many samples `sample` owes for the items; fewer or more are an error of the probe."""


@runtime_checkable
class DividesItself(Protocol):
    """A probe whose looks don't all ask a share of its prompts.

    For example one that samples several answers to a prompt: a look may ask a share of those to every prompt.
    """

    # Any: settings and items of the probe, as in the table of probes
    def divide(self, settings: Any, items: Sequence[Any], looks: Sequence[float]) -> list[Sequence[PromptItem]]:
        """What each look adds to the looks before it, as items that `sample` takes."""
