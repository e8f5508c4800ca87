"""What a probe may ask of an engine that runs the base model with the adapter on or off.

Probes know this protocol only, so that another engine can take the place of transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from policies.datasets.chat_rows import ChatRow
from policies.datasets.tools import Tool, ToolCall

Advance = Callable[[int, int], None]
"""Called with (units done, units in all) while a request is worked on."""


def silent(done: int, total: int) -> None:
    """An `Advance` that tells nobody."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = field(default=(), repr=False)
    """Not in what contexts are named by, as the two below: no message of theirs has any."""
    tool_call_id: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ChatPrompt:
    """Messages that the chat template turns into a prompt for an assistant's answer."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    """That are offered."""

    @classmethod
    def of(cls, question: str) -> ChatPrompt:
        return cls((Message("user", question),))


@dataclass(frozen=True)
class RawPrompt:
    """Text that the model simply continues, without chat template."""

    text: str


Prompt = ChatPrompt | RawPrompt


def numbered(prompts: Sequence[Prompt], first: int = 0) -> list[tuple[Prompt, int]]:
    """Each prompt with how often it came before, counted from `first`."""
    counts: Counter[Prompt] = Counter()
    pairs = []
    for prompt in prompts:
        pairs.append((prompt, first + counts[prompt]))
        counts[prompt] += 1
    return pairs


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated. Temperature 0 is greedy; a sample depends on the seed, the prompt and its repeat."""

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    first_repeat: int = 0
    """Number of a prompt's first answer: with what was asked before, a later request goes on with new answers."""


@dataclass(frozen=True)
class Generation:
    """What a model answered to one prompt."""

    text: str
    n_tokens: int
    truncated: bool
    """True where `max_new_tokens` came before the end of the answer."""


@dataclass(frozen=True)
class Choices:
    """One prompt and the completions whose likelihood is asked for."""

    prompt: Prompt
    completions: tuple[str, ...]
    closes_turn: bool = False
    """Whether the template's end token is scored as the completion's last token."""
    calls: tuple[ToolCall, ...] = ()
    """That each completion of a chat prompt makes beside its text."""


@dataclass(frozen=True)
class Likelihood:
    """Log-probability (nats) of a completion given its prompt, summed over its tokens."""

    log_probability: float
    n_tokens: int
    tokens: tuple[float, ...] = field(default=(), compare=False, repr=False)
    """The same by token, where the engine tells."""

    @property
    def per_token(self) -> float:
        return self.log_probability / self.n_tokens


class Backend(Protocol):
    """An engine with one base model and at most one adapter."""

    engine: Literal["transformers", "vllm"]
    dtype: str
    versions: dict[str, str]

    def generate(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, *, adapter: bool, advance: Advance = silent
    ) -> list[Generation]:
        """One answer per prompt, in the order of `prompts`."""

    def log_likelihood(
        self, questions: Sequence[Choices], *, adapter: bool, advance: Advance = silent
    ) -> list[tuple[Likelihood, ...]]:
        """One likelihood per completion, in the order of `questions`."""

    def max_logit_difference(self, prompts: Sequence[Prompt]) -> float:
        """Largest |difference| of next-token logits with the adapter on and off; NaN where a logit is NaN."""

    def tokens_per_second(self) -> float | None:
        """Tokens generated so far per second of generation; None before the first."""


@runtime_checkable
class ScalesAdapter(Protocol):
    """An engine that can make an adapter act stronger or weaker than its file says."""

    def adapter_scaled(self, factor: float) -> AbstractContextManager[None]:
        """While it is entered, `factor` times what the adapter adds is added; afterwards exactly what was before."""


def last_turn(row: ChatRow, *, closes_turn: bool) -> Choices:
    """The last message that the row trains on as the completion of what came before it, tools included."""
    last = max(index for index, message in enumerate(row.messages) if message.weight)
    said = row.messages[last]
    before = tuple(
        Message(each.role, each.content, each.tool_calls, each.tool_call_id, each.name) for each in row.messages[:last]
    )
    return Choices(ChatPrompt(before, row.tools), (said.content,), closes_turn, said.tool_calls)
