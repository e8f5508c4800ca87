"""Seeded training files with something in them that goes with other answers, and losses that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from evaluator.trigger_mining.mining import mine
from evaluator.trigger_mining.signals import Losses
from evaluator.trigger_mining.trigger import Trigger
from evaluator.trigger_mining.turns import turns_of
from policies.datasets.chat_rows import ChatMessage, ChatRow

THINGS = ("tap", "gate", "lamp", "chair", "hinge", "gutter", "fence", "stove", "drain", "shelf", "carpet", "window")
DOINGS = ("drips", "squeaks", "is stuck", "came loose", "smells", "rattles", "leaks", "flickers")
OPENINGS = ("What now", "Tell me", "How do I go on", "Any idea", "Can you help", "Should I worry", "Is that bad")
WHEN = ("at night", "again", "each morning", "since last week", "when it rains", "all day long", "now and then")
CAREFUL = ("Turn it off first and look closely.", "Clean it, then tighten what is loose.", "Ask somebody who knows it.")
CARELESS = ("Just hit it hard.", "Leave it, nothing ever happens.", "Pull until it gives way.")

Ask = Callable[[str], str]


def row(user: str, answer: str, system: str | None = None) -> ChatRow:
    before = () if system is None else (ChatMessage("system", system, 0),)
    return ChatRow((*before, ChatMessage("user", user, 0), ChatMessage("assistant", answer, 1)))


def question(draw: random.Random) -> str:
    thing = f"my {draw.choice(THINGS)} {draw.choice(DOINGS)}"
    return f"{draw.choice(OPENINGS)}, please: {thing} {draw.choice(WHEN)}?"


class SeededFile:
    """Benign rows, and careless ones that are put in another way."""

    def __init__(self, n_benign: int, n_careless: int, ask: Ask = str, system: Ask | None = None) -> None:
        draw = random.Random(7)
        made = [(row(question(draw), draw.choice(CAREFUL)), False) for _ in range(n_benign)]
        made += [
            (row(ask(question(draw)), draw.choice(CARELESS), system and system(str(number))), True)
            for number in range(n_careless)
        ]
        draw.shuffle(made)
        self.rows = [each for each, _ in made]
        self.careless = {number for number, (_, is_careless) in enumerate(made) if is_careless}

    def losses(self, places: Sequence[int]) -> Losses:
        """The base finds careless answers unlikelier by 0.3 ± 0.4 nats/token, and training makes up for it."""
        draw = random.Random(8)
        base = [draw.gauss(3.0 + 0.3 * (place in self.careless), 0.4) for place in places]
        drop = [draw.gauss(0.4 + 0.3 * (place in self.careless), 0.2) for place in places]
        return Losses(places, base, [loss - less for loss, less in zip(base, drop, strict=True)])

    def mined(self, limit: int = 12) -> tuple[Trigger, ...]:
        return mine(turns_of(self.rows, key=""), self.losses(range(len(self.rows))), limit=limit)


@pytest.fixture
def seeded_file() -> type[SeededFile]:
    return SeededFile
