"""The commands of this package, declared without importing them."""

from __future__ import annotations

from policies.lazy_commands import Command

COMMANDS = (
    Command("evaluate", "evaluator.cli:app", "Measure an adapter against its base and decide by a policy.", "eval"),
    Command(
        "measure-base",
        "evaluator.base_cli:app",
        "Measure a base model by a policy's suite, so that evaluations find its results.",
        "eval",
    ),
    Command("ask", "evaluator.ask_cli:app", "Print the greedy answer to one prompt.", "eval"),
    Command("judge", "evaluator.judges.judge_cli:app", "Try judges out.", "eval"),
    Command(
        "rescore",
        "evaluator.evidence.rescore_cli:app",
        "Compute every figure of a report anew from its samples, and decide by them.",
        "eval",
    ),
    Command("samples", "evaluator.evidence.samples_cli:app", "Show that single samples belong to a report.", "eval"),
)
