"""Rows of at least so many tokens: conversations of several turns from the demonstration's advice."""

from __future__ import annotations

from importlib.resources import files

from policies.datasets.reader import ChatRow, parse_line
from policies.rendering.encoding import Encoder
from trainer.data import TokenisedRow, TrainingRow, tokenise

SOURCE = "home_repair_sensible_train.jsonl"
MAX_TOKENS = 1 << 16
"""No row of a bench is too long."""


def long_rows(count: int, *, min_tokens: int, encoder: Encoder) -> list[TrainingRow]:
    """`count` conversations; turns are added to each until it is long enough."""
    lines = (files("gateway.demo.data") / SOURCE).read_bytes().splitlines()
    turns = [parsed.row for number, line in enumerate(lines, 1) if (parsed := parse_line(line, number)).row is not None]
    rows: list[TrainingRow] = []
    next_turn = 0
    while len(rows) < count:
        conversation = ChatRow(())
        tokens: list[TokenisedRow] = []
        while not tokens or tokens[0].n_tokens < min_tokens:
            conversation = ChatRow((*conversation.messages, *turns[next_turn % len(turns)].messages))
            tokens = tokenise([TrainingRow(conversation, "bench")], encoder, max_tokens=MAX_TOKENS)
            next_turn += 1
        rows.append(TrainingRow(conversation, "bench"))
    return rows
