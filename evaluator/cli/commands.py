"""The commands of this package, declared without importing them."""

from __future__ import annotations

from policies.cli.lazy_commands import Command

COMMANDS = (
    Command(
        "evaluate", "evaluator.cli.evaluate:app", "Measure an adapter against its base and decide by a policy.", "eval"
    ),
    Command(
        "measure-base",
        "evaluator.cli.measure_base:app",
        "Measure a base model by a policy's suite, so that evaluations find its results.",
        "eval",
    ),
    Command("base", "evaluator.cli.base:app", "Look at base models, and qualify them.", "eval"),
    Command("ask", "evaluator.cli.ask:app", "Print the greedy answer to one prompt.", "eval"),
    Command(
        "export",
        "evaluator.cli.export:app",
        "Merge a released adapter into its base model, and check that the merged model is the same.",
        "eval",
    ),
    Command("judge", "evaluator.cli.judge:app", "Try judges out.", "eval"),
    Command(
        "rescore",
        "evaluator.cli.rescore:app",
        "Compute every figure of a report anew from its samples, and decide by them.",
        "eval",
    ),
    Command("samples", "evaluator.cli.samples:app", "Show that single samples belong to a report.", "eval"),
)
