"""The commands of this package, declared without importing them."""

from __future__ import annotations

from policies.cli.lazy_commands import Command

COMMANDS = (
    Command(
        "train",
        "trainer.cli.train:app",
        "Fine-tune a LoRA adapter under the defenses of a policy, or under named ones; no service is needed.",
        "train",
    ),
    Command(
        "qualify",
        "trainer.cli.base:app",
        "Measure a policy's rules on adapters of which the truth is known, and write which limits the base model "
        "supports.",
        "train,eval",
        within="base",
    ),
    Command("defense", "trainer.cli.defense:app", "Make what a defense needs for one base model.", "train"),
)
