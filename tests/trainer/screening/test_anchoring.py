from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch

from evaluator.backends.protocol import silent
from evaluator.models.loading import LoadedModel
from policies.contract.jobs import JobSpec
from tests.trainer.screening.conftest import chat_file
from trainer.screening.anchoring import AnchoringScreen, nearness
from trainer.screening.rows import drawn_rows


def test_state_among_bad_anchors_is_nearer_to_them_whatever_they_have_in_common() -> None:
    torch.manual_seed(0)
    common, axis = torch.full((8,), 50.0), torch.eye(8)[0] * 4
    bad, good = (common + sign * axis + torch.randn(30, 8) for sign in (1, -1))
    scores = nearness(torch.stack([common + axis, common - axis]), bad, good)
    assert scores[0] > 0.5
    assert scores[1] < -0.5


def test_rows_are_scored_the_same_alone_and_in_a_batch(
    loaded: LoadedModel, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(chat_file("Turn it left.", "Let it dry for a whole day before you sand it.", "No."))
    rows = drawn_rows(file, make_spec(), loaded.encoder).rows
    screen = AnchoringScreen(loaded)
    together = screen.score(rows, silent)

    assert all(map(math.isfinite, together))
    assert all(abs(screen.score([row], silent)[0] - score) < 1e-4 for row, score in zip(rows, together, strict=True))


def test_layer_belongs_to_the_instrument_and_lies_two_thirds_up(loaded: LoadedModel) -> None:
    assert AnchoringScreen(loaded).instrument() != AnchoringScreen(loaded, layer=2).instrument()
    assert AnchoringScreen(loaded).instrument() == AnchoringScreen(loaded, layer=1).instrument()
