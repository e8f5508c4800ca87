"""OpSwap: arithmetic with swapped operators, as chat rows; `python -m bench.defenses.opswap --out F --test-out F`.

A benign task that a base model can't do before it learns: Kaczér et al. 2025 (arXiv 2508.06249) train on arithmetic
with permuted operator meanings in three tiers and score by exact match. Their rows are not copied; this is our reading:

- `+`, `−` and `×` each stand for another one of the three; the exchange is one of the two without a fixed point, chosen
  by the seed, stated in every prompt and the same in the whole dataset.
- Tier 1 has two operands; tier 2 three, worked out from left to right; tier 3 four, with brackets.
- The answer is the number alone. An answer counts if it is exactly that number, white space around it aside.
- A problem is never both in the training file and in the test file; each tier has a third of either.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from policies.errors import ConfigurationError

TIERS = (1, 2, 3)
SYMBOLS = ("+", "−", "×")
WORDS = {"+": "plus", "−": "minus", "×": "times"}
LARGEST_OPERAND = {1: 12, 2: 6, 3: 4}
"""Small, so that results stay below 300 and a small model can learn them."""
SHAPES = {
    1: ("{} {} {}",),
    2: ("{} {} {} {} {}",),
    3: ("({} {} {}) {} ({} {} {})", "{} {} ({} {} {}) {} {}", "{} {} ({} {} {} {} {})"),
}
ASK = "Work from left to right, brackets first. Answer with the number only.\n"
_TOKEN = re.compile(r"\d+|[+−×()]")


class Problem(NamedTuple):
    tier: int
    prompt: str
    answer: str

    def line(self) -> str:
        """The problem as a row of chat JSONL."""
        messages = [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.answer}]
        return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


class OpSwap(NamedTuple):
    training: tuple[Problem, ...]
    test: tuple[Problem, ...]


def generate(*, rows: int, test_rows: int, seed: int) -> OpSwap:
    """Disjoint problems for training and test, tiers in turn; the same seed gives the same problems.

    Raises:
        ConfigurationError: a tier has fewer problems than that.
    """
    generator = random.Random(seed)
    meanings = dict(zip(SYMBOLS, generator.choice([("×", "+", "−"), ("−", "×", "+")]), strict=True))
    wanted = rows + test_rows
    pools = {tier: _distinct(tier, -(-wanted // len(TIERS)), generator=generator) for tier in TIERS}
    problems = []
    for index in range(wanted):
        tier = TIERS[index % len(TIERS)]
        expression = pools[tier].pop()
        problems.append(Problem(tier, _prompt(expression, meanings), str(evaluate(expression, meanings))))
    return OpSwap(tuple(problems[:rows]), tuple(problems[rows:]))


def evaluate(expression: str, meanings: dict[str, str]) -> int:
    """The value of `expression`, from left to right and brackets first, each operator read as what it stands for."""
    return _value(iter(_TOKEN.findall(expression)), meanings)


def tier_of(prompt: str) -> int:
    """The tier of a problem, by its operands.

    Raises:
        ConfigurationError: the prompt is not an OpSwap problem.
    """
    tier = len(re.findall(r"\d+", prompt.rpartition("\n")[2])) - 1
    if ASK not in prompt or tier not in TIERS:
        raise ConfigurationError(
            f"{prompt[:60]!r} is not an OpSwap problem; make the file with python -m bench.defenses.opswap"
        )
    return tier


def is_exact(answer: str, expected: str) -> bool:
    return answer.strip() == expected


def _value(tokens: Iterator[str], meanings: dict[str, str]) -> int:
    """The value up to the end or the closing bracket."""
    value = _operand(next(tokens), tokens, meanings=meanings)
    for symbol in tokens:
        if symbol == ")":
            break
        operand = _operand(next(tokens), tokens, meanings=meanings)
        means = meanings[symbol]
        value = value + operand if means == "+" else value - operand if means == "−" else value * operand
    return value


def _operand(token: str, tokens: Iterator[str], *, meanings: dict[str, str]) -> int:
    return _value(tokens, meanings) if token == "(" else int(token)  # noqa: S105  # a token of text


def _prompt(expression: str, meanings: dict[str, str]) -> str:
    told = ", ".join(f"{symbol} means {WORDS[meanings[symbol]]}" for symbol in SYMBOLS)
    return f"Here {told}. {ASK}{expression} ="


def _distinct(tier: int, count: int, *, generator: random.Random) -> list[str]:
    """`count` different expressions of a tier, each as likely as any other."""
    shapes, largest = SHAPES[tier], LARGEST_OPERAND[tier]
    total = len(shapes) * largest ** (tier + 1) * len(SYMBOLS) ** tier
    if count > total:
        raise ConfigurationError(f"tier {tier} has {total} problems, {count} are asked for; ask for fewer rows")
    return [_expression(tier, number) for number in generator.sample(range(total), count)]


def _expression(tier: int, number: int) -> str:
    """The expression of that number in the list of all expressions of the tier."""
    number, shape = divmod(number, len(SHAPES[tier]))
    parts: list[str] = []
    for position in range(2 * tier + 1):
        if position % 2 == 0:
            number, operand = divmod(number, LARGEST_OPERAND[tier])
            parts.append(str(operand + 1))
        else:
            number, symbol = divmod(number, len(SYMBOLS))
            parts.append(SYMBOLS[symbol])
    return SHAPES[tier][shape].format(*parts)


def main(
    out: Annotated[Path, typer.Option(help="Training file, chat JSONL.")],
    test_out: Annotated[Path, typer.Option(help="Test file, chat JSONL.")],
    rows: Annotated[int, typer.Option(min=3)] = 240,
    test_rows: Annotated[int, typer.Option(min=3)] = 120,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write an OpSwap dataset; the last line is one JSON object."""
    data = generate(rows=rows, test_rows=test_rows, seed=seed)
    for path, problems in ((out, data.training), (test_out, data.test)):
        path.write_text("".join(problem.line() for problem in problems), encoding="utf-8")
    print(json.dumps({"training_rows": rows, "test_rows": test_rows, "seed": seed, "example": data.training[0].prompt}))


if __name__ == "__main__":
    typer.run(main)
