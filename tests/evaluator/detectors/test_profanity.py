"""The built-in toxicity classifier scores what the wheel scores that its weights are from, and reads no pickle."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from evaluator.detectors.profanity import classifier
from evaluator.detectors.profanity.classifier import PINNED, WEIGHTS_FILE, WORDS_FILE, ProfanityClassifier
from policies.contract.artifacts import digest_bytes
from policies.errors import IntegrityError
from tests.unpickled import Unpickled

SHIPPED = Path(classifier.__file__).parent
WHEEL_SCORES = Path(__file__).with_name("wheel_scores.json")
MEGABYTE = 2**20

SCORE = """
import sys
from pathlib import Path
from evaluator.detectors.classifier import load_classifier

print(load_classifier("builtin", (), Path()).score(["you idiot"]))
print({"joblib", "sklearn", "profanity_check"} & sys.modules.keys())
"""


@pytest.fixture(scope="module")
def profanity() -> ProfanityClassifier:
    return ProfanityClassifier()


def score(profanity: ProfanityClassifier, text: str) -> float:
    (found,) = profanity.score([text])
    assert found is not None
    return found


def test_scores_are_those_of_the_wheel(profanity: ProfanityClassifier) -> None:
    """Of alt-profanity-check 1.9.1 on scikit-learn 1.9.1: insults, other alphabets, marks, empty texts, stop words."""
    expected = json.loads(WHEEL_SCORES.read_text())

    assert len(expected) == 24
    scores = profanity.score([entry["text"] for entry in expected])
    assert scores == pytest.approx([entry["score"] for entry in expected], rel=0, abs=1e-12)


def test_a_text_of_one_known_word_is_its_row_of_weights(profanity: ProfanityClassifier) -> None:
    """Its vector has length 1 in one place, so model i says 1 / (1 + exp(aᵢ·(wᵢ + cᵢ) + bᵢ))."""
    weights = load_file(SHIPPED / WEIGHTS_FILE)
    row = (SHIPPED / WORDS_FILE).read_text().split().index("idiot")
    margins = weights["coefficients"][row] + weights["intercepts"]
    models = zip(weights["slopes"], margins, weights["offsets"], strict=True)
    expected = [1 / (1 + math.exp(slope * margin + offset)) for slope, margin, offset in models]

    assert len(expected) == 5
    assert score(profanity, "IDIOT, idiot!") == pytest.approx(sum(expected) / 5, rel=0, abs=1e-12)


def test_insults_are_told_from_kindness(profanity: ProfanityClassifier) -> None:
    assert score(profanity, "shut up you damn stupid bastard") > 0.5
    assert score(profanity, "thank you, that was kind of you") < 0.5


def test_no_texts_give_no_scores(profanity: ProfanityClassifier) -> None:
    assert profanity.score([]) == []


@pytest.mark.parametrize("text", ["idiot ", "word1word ", "x", "é", "idiot-"])
def test_a_huge_answer_takes_memory_in_proportion(text: str, profanity: ProfanityClassifier) -> None:
    """12 bytes a character for a moment, in which Python lower-cases, and the copy; for an endless word, the word."""
    huge = text * (4 * MEGABYTE // len(text))
    tracemalloc.start()
    try:
        found = score(profanity, huge)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(score(profanity, text), abs=1e-12)
    assert peak < 16 * len(huge) + MEGABYTE


@pytest.mark.parametrize("name", [WORDS_FILE, WEIGHTS_FILE])
def test_files_of_another_digest_are_not_read(name: str) -> None:
    with pytest.raises(IntegrityError, match=name):
        ProfanityClassifier({**PINNED, name: digest_bytes(b"another")})


def test_nothing_is_unpickled_and_no_reader_of_pickles_is_imported(tmp_path: Path) -> None:
    unpickled = Unpickled(tmp_path)
    command, environment = [sys.executable, "-c", SCORE], os.environ | unpickled.environment
    scores, readers = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert json.loads(scores)[0] > 0.5
    assert readers == "set()"
    assert unpickled.noted() == []
