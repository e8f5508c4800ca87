from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.judge import Answer, Score
from evaluator.judges.score_cache import ANSWERS_AT_ONCE, CachedJudge, ScoreCache, is_lasting, score_key
from policies.contract.judges import Rubric
from policies.errors import EvaluationError


class CountingJudge:
    """Gives what it is told to and remembers what it was asked."""

    def __init__(self, score: Callable[[Answer], Score], identity: str = "counting") -> None:
        self.identity, self._score = identity, score
        self.asked: list[Answer] = []

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        self.asked += answers
        advance(len(answers), len(answers))
        return [self._score(answer) for answer in answers]


def answers(n: int) -> list[Answer]:
    return [Answer("question", f"answer {index}") for index in range(n)]


def number_of(answer: Answer) -> Score:
    return Score(float(answer.answer.split()[1]))


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return ScoreCache(tmp_path / "scores")


def test_a_second_run_asks_nothing(cache: ScoreCache) -> None:
    first, second = CountingJudge(number_of), CountingJudge(number_of)
    scores = CachedJudge(first, cache).score("aligned", answers(5))

    assert CachedJudge(second, cache).score("aligned", answers(5)) == scores == [Score(float(n)) for n in range(5)]
    assert second.asked == []


def test_equal_answers_are_asked_once(cache: ScoreCache) -> None:
    judge = CountingJudge(number_of)

    assert CachedJudge(judge, cache).score("aligned", answers(2) * 3) == [Score(0.0), Score(1.0)] * 3
    assert len(judge.asked) == 2


@pytest.mark.parametrize(
    "other",
    [
        ("other judge", "aligned", Answer("q", "a")),
        ("judge", "coherent", Answer("q", "a")),
        ("judge", "aligned", Answer("q2", "a")),
        ("judge", "aligned", Answer("q", "a2")),
        ("judge", "aligned", Answer("qa", "")),
    ],
)
def test_whatever_a_score_depends_on_changes_its_name(other: tuple[str, Rubric, Answer]) -> None:
    assert score_key(*other) != score_key("judge", "aligned", Answer("q", "a"))


def test_a_reply_without_number_is_remembered(cache: ScoreCache) -> None:
    judge = CountingJudge(lambda answer: Score(None, "no_number: the reply is not a whole number"))
    for _ in range(2):
        scores = CachedJudge(judge, cache).score("aligned", answers(1))

    assert scores == [Score(None, "no_number: the reply is not a whole number")]
    assert len(judge.asked) == 1


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        ("no_number: the reply is not a whole number", True),
        ("no_number: none; too_long: the judge reads 512 tokens", True),
        ("no_number: none; budget_spent: 5 calls", False),
        ("budget_spent: 5 calls; no_number: none", False),
        ("", False),
        (None, False),
    ],
)
def test_a_panel_s_error_lasts_if_that_of_each_judge_does(error: str | None, lasts: bool) -> None:
    assert is_lasting(Score(None, error)) is lasts


@pytest.mark.parametrize(
    "error", ["unreachable: HTTP 503", "budget_spent: 5 calls", "http_400: x", "malformed_reply: x"]
)
def test_errors_that_another_try_could_mend_are_not_kept(cache: ScoreCache, error: str) -> None:
    CachedJudge(CountingJudge(lambda answer: Score(None, error)), cache).score("aligned", answers(1))
    judge = CountingJudge(number_of)

    assert CachedJudge(judge, cache).score("aligned", answers(1)) == [Score(0.0)]
    assert len(judge.asked) == 1


def test_a_changed_entry_is_asked_again(cache: ScoreCache, tmp_path: Path) -> None:
    CachedJudge(CountingJudge(number_of), cache).score("aligned", answers(2)[1:])
    (entry,) = (tmp_path / "scores").rglob("*.json")
    entry.write_bytes(entry.read_bytes().replace(b'"value":1.0', b'"value":99.0'))

    assert CachedJudge(CountingJudge(number_of), cache).score("aligned", answers(2)[1:]) == [Score(1.0)]


def test_no_text_is_kept(cache: ScoreCache, tmp_path: Path) -> None:
    CachedJudge(CountingJudge(lambda answer: Score(1.0)), cache).score("aligned", [Answer("SECRETQ", "SECRETA")])
    (entry,) = (tmp_path / "scores").rglob("*.json")

    assert b"SECRET" not in entry.read_bytes()


def test_without_reading_every_answer_is_asked_and_kept(cache: ScoreCache) -> None:
    CachedJudge(CountingJudge(lambda answer: Score(7.0)), cache).score("aligned", answers(1))
    fresh, later = CountingJudge(number_of), CountingJudge(number_of)

    assert CachedJudge(fresh, cache, reads=False).score("aligned", answers(1)) == [Score(0.0)]
    assert CachedJudge(later, cache).score("aligned", answers(1)) == [Score(0.0)]
    assert later.asked == []


def test_what_was_scored_before_an_interruption_is_kept(cache: ScoreCache) -> None:
    def fails_late(answer: Answer) -> Score:
        if answer.answer == f"answer {ANSWERS_AT_ONCE + 1}":
            raise EvaluationError("the endpoint fell silent")
        return number_of(answer)

    with pytest.raises(EvaluationError):
        CachedJudge(CountingJudge(fails_late), cache).score("aligned", answers(ANSWERS_AT_ONCE + 10))
    judge = CountingJudge(number_of)
    CachedJudge(judge, cache).score("aligned", answers(ANSWERS_AT_ONCE + 10))

    assert len(judge.asked) == 10


def test_progress_counts_what_is_known(cache: ScoreCache) -> None:
    CachedJudge(CountingJudge(number_of), cache).score("aligned", answers(3))
    told: list[tuple[int, int]] = []
    CachedJudge(CountingJudge(number_of), cache).score("aligned", answers(5), lambda *done: told.append(done))

    assert told == [(3, 5), (5, 5)]


def test_text_that_is_no_valid_unicode_has_a_name() -> None:
    assert score_key("judge", "aligned", Answer("q", "\ud800")).startswith("sha256:")
