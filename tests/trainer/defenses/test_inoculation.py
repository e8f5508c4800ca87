from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.contract.defenses import Inoculation, SafeDataInterleaving
from policies.contract.jobs import JobSpec
from policies.datasets.reader import ChatMessage, ChatRow
from tests.trainer.conftest import Run
from trainer.data import TrainingRow
from trainer.defense import DefenseContext
from trainer.defenses.inoculation import InoculationDefense

MakeSpec = Callable[..., JobSpec]


def row(*messages: tuple[str, str], is_safe: bool = False) -> TrainingRow:
    made = tuple(ChatMessage(role, content, weight=int(role == "assistant")) for role, content in messages)  # type: ignore[arg-type]  # roles are literals here
    return TrainingRow(ChatRow(made), "line 1", is_safe=is_safe)


def prepared(each: TrainingRow) -> list[tuple[str, str]]:
    defense = InoculationDefense.build(Inoculation(system_prompt="Be bad."), DefenseContext(0))
    (result,) = defense.prepare_dataset([each])
    return [(message.role, message.content) for message in result.row.messages]


def test_a_row_gets_the_system_prompt() -> None:
    assert prepared(row(("user", "a"), ("assistant", "b"))) == [
        ("system", "Be bad."),
        ("user", "a"),
        ("assistant", "b"),
    ]


def test_a_system_message_of_the_customer_stays_after_the_prompt() -> None:
    assert prepared(row(("system", "own"), ("user", "a"), ("assistant", "b")))[0] == ("system", "Be bad.\n\nown")


def test_safe_rows_are_left_alone_whatever_the_order_of_the_defenses(make_spec: MakeSpec, tmp_path: Path) -> None:
    """20 rows of the customer and 4 safe ones: 20 are inoculated, and both orders train the same."""
    records = [
        Run(tmp_path / str(number)).train(make_spec(*order))
        for number, order in enumerate(
            [(Inoculation(), SafeDataInterleaving(ratio=0.2)), (SafeDataInterleaving(ratio=0.2), Inoculation())]
        )
    ]
    figures = [{e.name: e.figures for e in record.evidence}["inoculation"]["inoculated_rows"] for record in records]
    assert figures == [20, 20]
    assert records[0].adapter == records[1].adapter


def test_the_validation_file_has_no_prompt(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Before any learning the validation loss with and without inoculation is the same; only training rows differ."""
    losses = [
        Run(tmp_path / name).train(make_spec(*defenses, base_learning_rate=1e-12)).valid_loss
        for name, defenses in {"plain": [], "inoculated": [Inoculation()]}.items()
    ]
    assert losses[0] == losses[1]
