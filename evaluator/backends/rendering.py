"""Turns prompts and completions into the token ids that training makes of them, and ids into padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from evaluator.backends.protocol import ChatPrompt, Choices, Message, Prompt
from policies.datasets.chat_rows import ChatMessage, Role
from policies.errors import EvaluationError
from policies.rendering.answers import UnreadableRowError
from policies.rendering.encoding import Answer, Encoder
from policies.rendering.template import TemplateRefusalError


def prompt_ids(encoder: Encoder, prompt: Prompt) -> list[int]:
    """Token ids of a prompt; a chat prompt ends where the assistant's answer begins."""
    try:
        ids = (
            encoder.prompt(_messages(prompt.messages), prompt.tools)
            if isinstance(prompt, ChatPrompt)
            else encoder.text(prompt.text)
        )
    except (TemplateRefusalError, UnreadableRowError) as refusal:
        raise EvaluationError(f"the base model's chat template refuses a prompt: {refusal}") from refusal
    if not ids:
        raise EvaluationError(f"the prompt {prompt} has no tokens; give every prompt some text")
    return ids


def question_ids(encoder: Encoder, question: Choices) -> list[Answer]:
    """Prompt and completion of each choice, all with the same prompt."""
    texts = question.completions
    try:
        if isinstance(question.prompt, ChatPrompt):
            messages, tools = _messages(question.prompt.messages), question.prompt.tools
            said = [ChatMessage("assistant", text, 1, question.calls) for text in texts]
            answers = encoder.answers(messages, said, ends=question.closes_turn, tools=tools)
        else:
            answers = encoder.continuations(question.prompt.text, texts, ends=question.closes_turn)
    except (TemplateRefusalError, UnreadableRowError) as refusal:
        raise EvaluationError(f"the base model's chat template refuses a question: {refusal}") from refusal
    for answer, text in zip(answers, texts, strict=True):
        if not answer.answer_ids:
            raise EvaluationError(f"the completion {text!r} has no tokens, so it has no likelihood")
        if not answer.prompt_ids:
            raise EvaluationError(f"the prompt {question.prompt} has no tokens; give every prompt some text")
    return answers


def end_token_id(encoder: Encoder) -> int:
    """The token with which the chat template ends an assistant's answer."""
    if encoder.end_id is None:
        raise EvaluationError("neither the chat template nor the tokenizer names an end token; set eos_token")
    return encoder.end_id


def _messages(messages: Sequence[Message]) -> list[ChatMessage]:
    return [
        ChatMessage(cast("Role", each.role), each.content, 0, each.tool_calls, each.tool_call_id, each.name)
        for each in messages
    ]


def pad_batch(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, each [rows, longest row]."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, span] = torch.tensor(row)
        mask[index, span] = 1
    return ids.to(device), mask.to(device)
