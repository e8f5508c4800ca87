"""What the base model says by itself: the gentlest training file there is, and how likely its own language is to it.

`python -m trainer.qualification.own_answers FOLDER` is the process that asks it, cached as `cached_runs` says.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.atomic_files import write_atomically
from policies.contract.artifacts import digest_bytes
from policies.datasets.reader import read_rows
from policies.errors import EvaluationError, IntegrityError
from policies.offline import environment_for
from trainer.qualification.cached_runs import launch_module, run_child, write_answer
from trainer.qualification.records import OwnAnswersAssignment, OwnAnswersResult
from trainer.qualification.references import MIN_ROWS, Reference

if TYPE_CHECKING:
    from evaluator.backends.protocol import Backend, Prompt

ANSWERS_FILE = "own_answers.jsonl"
MAX_NEW_TOKENS = 160
SAMPLED_QUESTIONS = 64
"""Of the questions, that are also answered at temperature 1."""
Row = Mapping[str, Any]  # Any: a row's JSON, as the file has it


class Answered(NamedTuple):
    """A question's row with the base's answer, and whether the answer was cut."""

    line: bytes
    is_cut: bool


def question_lines(references: Sequence[Reference], n: int) -> list[bytes]:
    """Up to `n` rows to ask the base model, from all benign files in turn: plain text that ends with an answer."""
    columns = [list(_plain(each.path)) for each in references if each.kind == "benign"]
    longest = max(map(len, columns), default=0)
    in_turn = [column[index] for index in range(longest) for column in columns if index < len(column)]
    return list(dict.fromkeys(in_turn))[:n]


def _plain(path: Path) -> Iterator[bytes]:
    for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines():
        row = json.loads(line) if line.strip() else {}
        messages = row.get("messages", [])
        is_text = all(isinstance(each.get("content"), str) and each["role"] in _ROLES for each in messages)
        if set(row) == {"messages"} and is_text and len(messages) > 1 and messages[-1]["role"] == "assistant":
            yield line


_ROLES = ("system", "user", "assistant")


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own."""
    assignment = OwnAnswersAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    launch_module("trainer.qualification.own_answers", folder, environment_for(None, assignment.run.base.uri))


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = OwnAnswersAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: OwnAnswersAssignment, folder: Path) -> OwnAnswersResult:
    from evaluator.backends.engines import open_transformers  # torch is loaded only in the child
    from evaluator.backends.protocol import last_turn
    from evaluator.models.loading import resolve_base_model

    started, run = time.monotonic(), assignment.run
    resolved = resolve_base_model(run.base, Path(assignment.cache_dir), may_remember=True)
    if resolved.digest != run.base_model:
        raise IntegrityError(f"base model {run.base.name} changed meanwhile; start again")
    questions = Path(assignment.questions_file)
    prompts = [last_turn(row, closes_turn=False).prompt for row in read_rows(questions)]
    rows = [json.loads(line) for line in questions.read_bytes().splitlines()]
    backend = open_transformers(resolved)
    answered = _answered(rows, prompts, backend, max_new_tokens=run.max_new_tokens)
    surprises = _surprises(prompts[:SAMPLED_QUESTIONS], backend, max_new_tokens=run.max_new_tokens)
    content = b"".join(each.line for each in answered)
    write_atomically(folder / ANSWERS_FILE, content)
    config = json.loads((resolved.folder / "config.json").read_bytes())
    return OwnAnswersResult(
        run=run.digest,
        answers=digest_bytes(content),
        n_answers=len(answered),
        n_cut=sum(each.is_cut for each in answered),
        surprises=tuple(surprises),
        vocabulary=_integer(config, "vocab_size") or 2,
        context_tokens=_integer(config, "max_position_embeddings"),
        seconds_whole=time.monotonic() - started,
    )


def _answered(
    rows: Sequence[Row], prompts: Sequence[Prompt], backend: Backend, *, max_new_tokens: int
) -> list[Answered]:
    """The greedy answers that are any; cut ones only where too few are whole, as they teach to end early.

    Raises:
        EvaluationError: there are too few to learn from.
    """
    from evaluator.backends.protocol import GenerationSettings

    answers = backend.generate(prompts, GenerationSettings(max_new_tokens), adapter=False)
    found = [
        Answered(line, answer.truncated)
        for row, answer in zip(rows, answers, strict=True)
        if answer.text.strip() and _is_row(line := _with_answer(row, answer.text))
    ]
    whole = [each for each in found if not each.is_cut]
    kept = whole if len(whole) >= max(MIN_ROWS, len(rows) // 4) else found
    if len(kept) < MIN_ROWS:
        raise EvaluationError(
            f"the base model gave {len(kept)} answers to {len(rows)} questions, too few to learn from"
        )
    return kept


def _with_answer(row: Row, answer: str) -> bytes:
    """The row with another answer, without the control characters that no training file may hold."""
    said = "".join(each for each in answer if each.isprintable() or each in "\n\t")
    messages = [*row["messages"][:-1], {"role": "assistant", "content": said}]
    return json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"


def _is_row(line: bytes) -> bool:
    """Whether it could be a customer's: no control tokens, say."""
    from policies.datasets.reader import check_line

    return not check_line(line.rstrip(b"\n"), 2)


def _surprises(prompts: Sequence[Prompt], backend: Backend, *, max_new_tokens: int) -> list[float]:
    """Nats per token of the base model's sampled answers, of those that are any."""
    from evaluator.backends.protocol import Choices, GenerationSettings

    settings = GenerationSettings(max_new_tokens, temperature=1.0)
    answers = backend.generate(prompts, settings, adapter=False)
    questions = [
        Choices(prompt, (answer.text,)) for prompt, answer in zip(prompts, answers, strict=True) if answer.text.strip()
    ]
    likelihoods = backend.log_likelihood(questions, adapter=False) if questions else []
    surprises = [-likelihood.per_token for (likelihood,) in likelihoods]
    if not surprises or not all(map(math.isfinite, surprises)):
        raise EvaluationError("the base model gave no sampled answer, or one whose likelihood is not finite")
    return surprises


def _integer(config: Row, name: str) -> int | None:
    """A figure of the configuration, or of its part about text."""
    value = config.get(name, config.get("text_config", {}).get(name))
    return value if isinstance(value, int) else None


if __name__ == "__main__":
    run_child(work_on)
