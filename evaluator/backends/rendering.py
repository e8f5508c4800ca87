"""Turns prompts into token ids: chat template, end token, padded batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evaluator.backends.protocol import ChatPrompt, Prompt
from policies.errors import EvaluationError

_MARK = "tunegate-answer-marker"


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt; a chat prompt ends where the assistant's answer begins."""
    if isinstance(prompt, ChatPrompt):
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    else:
        ids = tokenizer(prompt.text).input_ids
    if not ids:
        raise EvaluationError(f"the prompt {prompt} has no tokens; give every prompt some text")
    return list(ids)


def completion_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if not ids:
        raise EvaluationError(f"the completion {text!r} has no tokens, so it has no likelihood")
    return list(ids)


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template puts after an assistant's answer, or the end-of-sequence token."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    after = tokenizer(rendered.partition(_MARK)[2].strip(), add_special_tokens=False).input_ids
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    found = after[0] if after and after[0] in special else tokenizer.eos_token_id
    if found is None:
        raise EvaluationError("neither the chat template nor the tokenizer names an end token; set eos_token")
    return int(found)


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
