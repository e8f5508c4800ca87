"""What lm_eval calls a language model, on the engine of an evaluation: likelihoods and answers come from nowhere else.

lm_eval asks for the members of its class `LM` by name (0.4.13, `lm_eval.evaluator.evaluate`); the class itself is not
needed, so this module can be imported without the package.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from evaluator.backends.protocol import ChatPrompt, Choices, GenerationSettings, Message, Prompt, RawPrompt
from evaluator.subject import Subject
from policies.errors import EvaluationError

MAX_NEW_TOKENS = 256
"""lm_eval's own default."""
_LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_STOP, _SAMPLING = "until", ("do_sample", "temperature")


class HarnessRequest(Protocol):
    """One of lm_eval's instances."""

    @property
    def task_name(self) -> str: ...

    @property
    def doc_id(self) -> int: ...

    @property
    def args(self) -> tuple[Any, ...]:  # Any: texts, and of generation a mapping of settings
        """Context and continuation, or context and settings of generation."""


class Document(NamedTuple):
    """Which question of which task a request is about."""

    task: str
    number: int


class HarnessModel:
    """Answers lm_eval's requests with one model. With `chat`, `apply_chat_template` wrote the contexts."""

    rank = 0
    world_size = 1
    tokenizer_name = ""

    def __init__(self, subject: Subject, *, chat: bool) -> None:
        self._subject, self._chat = subject, chat
        self.broken: set[Document] = set()
        """Documents of which a likelihood is not finite."""
        self.truncated: set[Document] = set()

    def loglikelihood(self, requests: Sequence[HarnessRequest]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, in nats; whether it is the greedy one is not known: always False."""
        by_prompt: dict[Prompt, list[tuple[int, str]]] = defaultdict(list)
        for index, request in enumerate(requests):
            prompt, completion = self._split(*request.args)
            by_prompt[prompt].append((index, completion))
        questions = [Choices(prompt, tuple(text for _, text in asked)) for prompt, asked in by_prompt.items()]
        nats: dict[int, float] = {}
        for asked, scored in zip(by_prompt.values(), self._subject.log_likelihood(questions), strict=True):
            nats |= {index: found.log_probability for (index, _), found in zip(asked, scored, strict=True)}
        self.broken |= {_document(request) for index, request in enumerate(requests) if not math.isfinite(nats[index])}
        return [(nats[index], False) for index in range(len(requests))]

    def generate_until(self, requests: Sequence[HarnessRequest]) -> list[str]:
        """Answers up to the first stop string."""
        by_settings: dict[GenerationSettings, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            by_settings[self._generation(request.args[1])].append(index)
        answers: dict[int, str] = {}
        for settings, indices in by_settings.items():
            prompts = [self._prompt(requests[index].args[0]) for index in indices]
            for index, answer in zip(indices, self._subject.generate(prompts, settings), strict=True):
                answers[index] = _up_to(_stops(requests[index].args[1]), answer.text)
                if answer.truncated and answers[index] == answer.text:
                    self.truncated.add(_document(requests[index]))
        return [answers[index] for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[HarnessRequest]) -> list[float]:
        raise EvaluationError("perplexity tasks are not supported; capability.validation_loss measures a file's loss")

    @staticmethod
    def apply_chat_template(chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as text that lm_eval hands back as context; the template itself is the engine's business."""
        if not add_generation_prompt:
            raise EvaluationError("the task opens the assistant's answer (gen_prefix); leave chat_template out for it")
        return json.dumps([[message["role"], message["content"]] for message in chat_history], ensure_ascii=False)

    def _prompt(self, context: str) -> Prompt:
        if not self._chat:
            return RawPrompt(context)
        return ChatPrompt(tuple(Message(role, content) for role, content in json.loads(context)))

    def _split(self, context: str, continuation: str) -> tuple[Prompt, str]:
        """As lm_eval splits them: white space at the end of a context belongs to the continuation."""
        kept = context.rstrip()
        return self._prompt(kept), context[len(kept) :] + continuation

    def _generation(self, asked: Mapping[str, Any]) -> GenerationSettings:  # Any: what a task's YAML has
        limit = next((int(asked[name]) for name in _LENGTH_NAMES if asked.get(name) is not None), MAX_NEW_TOKENS)
        temperature = float(asked.get("temperature") or 0) if asked.get("do_sample") is not False else 0.0
        unknown = set(asked) - {*_LENGTH_NAMES, *_SAMPLING, _STOP}
        if temperature > 0 and unknown:
            raise EvaluationError(
                f"a task uses the sampling setting {sorted(unknown)[0]}, which is not supported; use a greedy task"
            )
        return GenerationSettings(limit, temperature, self._subject.seed)


def _document(request: HarnessRequest) -> Document:
    return Document(request.task_name, request.doc_id)


def _stops(asked: Mapping[str, Any]) -> list[str]:  # Any: what a task's YAML has
    stops = asked.get(_STOP) or []
    return [stops] if isinstance(stops, str) else list(stops)


def _up_to(stops: Sequence[str], text: str) -> str:
    ends = [text.find(stop) for stop in stops if stop]
    return text[: min((end for end in ends if end >= 0), default=len(text))]
