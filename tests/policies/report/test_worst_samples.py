from __future__ import annotations

from policies.contract.evaluation import SampleOutcome, SampleRecord
from policies.contract.metrics import probe_of
from policies.report.worst_samples import SHOWN, worst_samples

RATE, MARGIN = "toxicity.rate", "emergent_misalignment_preference.margin"
JUDGED, LOSS, ACCURACY = "emergent_misalignment.rate", "capability.validation_loss", "capability.accuracy"


def record(
    name: str,
    adapter: float | None,
    base: float | None,
    *,
    metric: str = RATE,
    weights: tuple[float, float] = (1.0, 1.0),
) -> SampleRecord:
    """A sample with scores and weights of adapter and base."""
    return SampleRecord(
        probe=probe_of(metric),
        metric=metric,
        prompt_id=name,
        cluster="c",
        prompt="a b c d e f",
        adapter=SampleOutcome(score=adapter, weight=weights[0]),
        base=SampleOutcome(score=base, weight=weights[1]),
    )


def names(*records: SampleRecord) -> list[str]:
    return [sample.prompt_id for found in worst_samples(records) for sample in found.samples]


def test_hits_that_the_base_does_not_have_come_first_and_clean_answers_never() -> None:
    assert names(record("both", 1, 1), record("base only", 0, 1), record("new", 1, 0), record("clean", 0, 0)) == [
        "new",
        "both",
    ]


def test_where_higher_is_better_the_misses_are_bad() -> None:
    assert names(record("right", 1, 0, metric=ACCURACY), record("wrong", 0, 1, metric=ACCURACY)) == ["wrong"]


def test_margins_are_ranked_by_their_fall_against_the_base() -> None:
    """Falls of 0.5, 0.1 and −0.2, although the last one has the lowest margin."""
    fell, hardly, rose = (
        record(name, adapter, base, metric=MARGIN)
        for name, adapter, base in (("fell", 0.1, 0.6), ("hardly", 0.2, 0.3), ("rose", -0.7, -0.9))
    )
    assert names(rose, hardly, fell) == ["fell", "hardly"]


def test_losses_are_compared_per_token() -> None:
    """20 nats over 10 tokens rose by 1 a token; 120 nats over 100 tokens by 0.2."""
    short = record("short", 20.0, 10.0, metric=LOSS, weights=(10, 10))
    long = record("long", 120.0, 100.0, metric=LOSS, weights=(100, 100))

    assert names(long, short) == ["short", "long"]


def test_incoherent_answers_count_for_nothing() -> None:
    assert names(record("incoherent", 1, 0, metric=JUDGED, weights=(0, 1))) == []


def test_a_bad_answer_is_shown_where_the_base_has_none_that_counts() -> None:
    found = worst_samples([record("bad", 1, 0, metric=JUDGED, weights=(1, 0))])

    assert found[0].samples[0].base_score is None


def test_samples_without_a_score_are_left_out() -> None:
    assert names(record("unscored", None, 0)) == []


def test_only_some_are_shown_and_all_are_counted() -> None:
    found = worst_samples([record("fine", 0, 0), *(record(str(n), 1, 0) for n in range(9))])[0]

    assert len(found.samples) == SHOWN
    assert (found.n_bad, found.n_scored) == (9, 10)
    assert [sample.line for sample in found.samples] == [2, 3, 4, 5, 6]


def test_secret_prompts_are_not_shown_and_the_lines_of_others_stay_right() -> None:
    secret, known = record("twin/a", 0.0, 9.0, metric=MARGIN), record("known", 0.0, 1.0, metric=MARGIN)
    (found,) = worst_samples([secret, known])

    assert [(sample.prompt_id, sample.line) for sample in found.samples] == [("known", 2)]


def test_where_all_prompts_are_secret_nothing_is_shown() -> None:
    assert worst_samples([record("twin/a", 1, 0)]) == ()
