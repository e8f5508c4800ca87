"""Resumable state of a run in safetensors and JSON: optimizer, scheduler, random states, counters of the defenses.

Pickle is never written and never read; a tensor of the optimizer state is named `<parameter index>.<name>`.
"""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from policies.errors import IntegrityError
from policies.pickle_files import find_pickles

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "run_state.json"
RANDOM_FILE = "random_state_{}.json"

Json = dict[str, Any]  # Any: a JSON document


def save_optimizer(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Write the optimizer's and the scheduler's state."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    save_file(tensors, folder / OPTIMIZER_FILE)
    groups = [{name: _plain(value) for name, value in group.items()} for group in state["param_groups"]]
    schedule = {name: value for name, value in scheduler.state_dict().items() if _is_json(value)}
    (folder / STATE_FILE).write_text(json.dumps({"param_groups": groups, "scheduler": schedule}))


def load_optimizer(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Restore what `save_optimizer` wrote."""
    refuse_pickles(folder)
    saved = json.loads((folder / STATE_FILE).read_text())
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / OPTIMIZER_FILE).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    current = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in current] != [group["params"] for group in saved["param_groups"]]:
        raise IntegrityError(f"{folder}: the checkpoint's optimizer and this run's have different parameters")
    groups = [old | new for old, new in zip(current, saved["param_groups"], strict=True)]
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(scheduler.state_dict() | saved["scheduler"])


def save_random_state(folder: Path, process: int, *, n_processes: int) -> None:
    """Write the states of Python's, NumPy's and torch's generators in one of the `n_processes` of a run."""
    folder.mkdir(parents=True, exist_ok=True)  # a follower may come here before the leader has made it
    kind, *inner = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "processes": n_processes,
        "python": [kind, *inner],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": _encode(torch.random.get_rng_state()),
        "cuda": [_encode(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }
    (folder / RANDOM_FILE.format(process)).write_text(json.dumps(states))


def load_random_state(folder: Path, process: int) -> None:
    """Restore what `save_random_state` wrote; processes that the run did not have before keep their state.

    Raises:
        IntegrityError: the state of one of the processes that saved is missing.
    """
    n_processes: int = json.loads((folder / RANDOM_FILE.format(0)).read_text())["processes"]
    missing = [number for number in range(n_processes) if not (folder / RANDOM_FILE.format(number)).exists()]
    if missing:
        raise IntegrityError(
            f"{folder} has no random state of process {missing[0]} of {n_processes}, so the run can't go on as it "
            "was; resume from another checkpoint"
        )
    if process >= n_processes:
        return  # a job may go on where there are more devices
    states = json.loads((folder / RANDOM_FILE.format(process)).read_text())
    kind, inner, gauss = states["python"]
    random.setstate((kind, tuple(inner), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(_decode(states["torch"]))
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all([_decode(state) for state in states["cuda"]])


def refuse_pickles(folder: Path) -> None:
    """Raises where a checkpoint folder holds anything that might be a pickle."""
    if found := find_pickles(folder):
        raise IntegrityError(f"{folder} holds {found[0]}, which may be a pickle; only safetensors and JSON are loaded")


def _encode(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, torch.Tensor) else value


def _is_json(value: object) -> bool:
    """Whether a scheduler attribute is data; its lambdas are rebuilt, not saved."""
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
