"""State goes to safetensors and JSON and comes back unchanged; pickles are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from policies.errors import IntegrityError
from trainer.loop.checkpoints import (
    load_optimizer,
    load_random_state,
    refuse_pickles,
    save_optimizer,
    save_random_state,
)


def optimizer_after(steps: int, *, width: int = 3) -> tuple[torch.optim.AdamW, LambdaLR]:
    weight = torch.nn.Parameter(torch.ones(width))
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.9))
    scheduler = LambdaLR(optimizer, lambda step: 1 / (step + 1))
    for step in range(steps):
        weight.grad = torch.full((width,), float(step + 1))
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def test_optimizer_and_scheduler_come_back_as_they_were(tmp_path: Path) -> None:
    saved, fresh = optimizer_after(3), optimizer_after(0)
    save_optimizer(tmp_path, *saved)
    load_optimizer(tmp_path, *fresh)
    assert fresh[0].state_dict()["param_groups"] == saved[0].state_dict()["param_groups"]
    for name, value in saved[0].state_dict()["state"][0].items():
        assert torch.equal(fresh[0].state_dict()["state"][0][name], value)
    assert fresh[1].get_last_lr() == saved[1].get_last_lr() == [pytest.approx(0.1 / 4)]
    assert fresh[1].last_epoch == 3


def test_the_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    save_optimizer(tmp_path, *optimizer_after(1))
    both = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(IntegrityError, match="different parameters"):
        load_optimizer(tmp_path, both, LambdaLR(both, lambda _: 1.0))


def test_all_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    save_random_state(tmp_path, 0, n_processes=1)
    expected = draw()
    draw()
    load_random_state(tmp_path, 0)
    assert draw() == expected


@pytest.mark.parametrize("process", [0, 1])
def test_a_checkpoint_without_the_random_state_of_a_process_is_refused_by_all(tmp_path: Path, process: int) -> None:
    save_random_state(tmp_path, 0, n_processes=2)
    with pytest.raises(IntegrityError, match="no random state of process 1 of 2"):
        load_random_state(tmp_path, process)


def test_a_process_that_the_run_did_not_have_keeps_its_random_state(tmp_path: Path) -> None:
    save_random_state(tmp_path, 0, n_processes=1)
    before = torch.random.get_rng_state()
    load_random_state(tmp_path, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "rng_state.pth", "training_args.bin", "deep/state.pkl", "model.CKPT", "x.pickle"]
)
def test_a_folder_with_a_pickle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match="may be a pickle"):
        refuse_pickles(tmp_path)
