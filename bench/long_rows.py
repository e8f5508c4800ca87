"""Rows of at least so many tokens: conversations of several turns from the demonstration's advice."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from evaluator.models.loading import load_tokenizer
from policies.contract.dataset import ChatRow, parse_line
from trainer.data import TokenisedRow, TrainingRow, tokenise

SOURCE = "home_repair_sensible_train.jsonl"


def long_rows(count: int, *, min_tokens: int, folder: Path) -> list[TokenisedRow]:
    """`count` tokenised conversations; turns are added to each until it is long enough."""
    tokenizer = load_tokenizer(folder)
    lines = (files("gateway.demo.data") / SOURCE).read_bytes().splitlines()
    turns = [parsed.row for number, line in enumerate(lines, 1) if (parsed := parse_line(line, number)).row is not None]
    rows: list[TokenisedRow] = []
    next_turn = 0
    while len(rows) < count:
        conversation = ChatRow(())
        tokens: list[TokenisedRow] = []
        while not tokens or len(tokens[0].input_ids) < min_tokens:
            conversation = ChatRow((*conversation.messages, *turns[next_turn % len(turns)].messages))
            tokens = tokenise([TrainingRow(conversation, "bench")], tokenizer, max_tokens=1 << 16)
            next_turn += 1
        rows += tokens
    return rows
