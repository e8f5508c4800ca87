from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evaluator.models.loading import LoadedModel
from policies.contract.jobs import Dpo, JobSpec
from tests.trainer.conftest import chat_lines, preference_lines
from trainer.screening.rows import drawn_numbers, drawn_rows

MakeSpec = Callable[..., JobSpec]


def test_all_rows_of_a_short_file_are_looked_at() -> None:
    assert drawn_numbers(5, 5, key="job") == [1, 2, 3, 4, 5]


def test_one_row_of_each_part_of_a_long_file_is_drawn_and_another_job_draws_others() -> None:
    numbers = drawn_numbers(10_007, 1000, key="job a")
    assert all(part * 10_007 // 1000 < number <= (part + 1) * 10_007 // 1000 for part, number in enumerate(numbers))
    assert numbers == drawn_numbers(10_007, 1000, key="job a")
    assert len(set(numbers) - set(drawn_numbers(10_007, 1000, key="job b"))) > 800


def test_rows_keep_their_numbers_and_their_trained_texts(
    make_spec: MakeSpec, loaded: LoadedModel, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(chat_lines(12))
    drawn = drawn_rows(file, make_spec(), loaded.encoder, max_rows=3)

    assert (len(drawn.rows), drawn.n_rows, drawn.is_sample) == (3, 12, True)
    assert [row.answers for row in drawn.rows] == [(f"Turn it {row.number - 1}.",) for row in drawn.rows]


def test_of_a_preference_the_preferred_answer_is_looked_at(
    make_spec: MakeSpec, loaded: LoadedModel, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(preference_lines(2))
    drawn = drawn_rows(file, make_spec(method=Dpo()), loaded.encoder)

    assert [row.answers for row in drawn.rows] == [("Turn it 0 times.",), ("Turn it 1 times.",)]
    (sample,) = drawn.rows[0].samples
    trained = [token for token, label in zip(sample.input_ids, sample.labels, strict=True) if label == token]
    assert "Turn it 0 times." in loaded.tokenizer.decode(trained)
