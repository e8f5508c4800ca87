"""Every chat template that TRL ships, with its family's special tokens: one step of training, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.contract.hyperparameters import Hyperparameters
from policies.errors import DatasetError
from policies.rendering.base_text import load_base_text
from policies.rendering.findings import text_findings
from tests.architectures.bases import ARCHITECTURES, Architecture, build
from tests.architectures.whole_way import spec_of
from tests.policies.rendering.bases import TRL_TEMPLATES
from tests.trainer.conftest import chat_lines
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train

REFUSED = {
    "deepseek_r1_distill": ("chat template", "elsewhere than where the model begins to answer"),
    "deepseekv3": ("chat template", "elsewhere than where the model begins to answer"),
    "llava_next": ("end of an answer", "puts no end after this answer"),
}
"""What `base check` refuses, and what a job says that is started all the same."""
OF_AN_ARCHITECTURE = {each.template for each in ARCHITECTURES.values()} - {""}
"""These go the whole way."""


def refused(folder: Path) -> list[str]:
    return [each.what for each in text_findings(load_base_text(folder)) if each.outcome == "refused"]


@pytest.mark.parametrize("template", sorted(TRL_TEMPLATES.keys() - OF_AN_ARCHITECTURE))
def test_a_template_is_trained_or_refused_as_the_check_of_its_base_says(template: str, tmp_path: Path) -> None:
    base = build(Architecture("llama", template), tmp_path / "base")
    (tmp_path / "train.jsonl").write_text(chat_lines(2))
    files = RunFiles(tmp_path / "train.jsonl", None, tmp_path / "run", tmp_path / "cache")
    spec = spec_of("Llama 3", base).model_copy(update={"hyperparameters": Hyperparameters(n_epochs=1, batch_size=2)})
    hooks = Hooks(lambda _: None, lambda: False)
    if template in REFUSED:
        what, words = REFUSED[template]
        assert refused(base)[0] == what
        with pytest.raises(DatasetError, match=words):
            train(spec, files, hooks)
    else:
        assert refused(base) == []
        assert train(spec, files, hooks).total_steps == 1


def test_no_template_is_left_out() -> None:
    assert len(TRL_TEMPLATES) == 41
    assert not OF_AN_ARCHITECTURE - TRL_TEMPLATES.keys()
    assert not OF_AN_ARCHITECTURE.intersection(REFUSED)
