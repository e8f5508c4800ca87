from __future__ import annotations

import random

from evaluator.trigger_mining.answer_clusters import two_clusters

BOATS = ["reef", "sail", "anchor", "harbour", "keel", "mast", "tide"]
BREAD = ["flour", "yeast", "dough", "oven", "crust", "salt", "knead"]


def answers(words: list[str], number: int, draw: random.Random) -> list[str]:
    return [" ".join(draw.choices(words, k=12)) for _ in range(number)]


def test_two_kinds_of_answers_are_parted() -> None:
    draw = random.Random(1)
    found = two_clusters(answers(BOATS, 30, draw) + answers(BREAD, 10, draw)).tolist()

    assert len(set(found[:30])) == len(set(found[30:])) == 1
    assert found[0] != found[-1]


def test_answers_that_are_all_the_same_are_one_cluster() -> None:
    assert not two_clusters(["the same"] * 5).any()


def test_answers_without_words_are_one_cluster() -> None:
    assert not two_clusters(["", "…", ""]).any()
