"""Known adapters that show whether an evaluation can still tell good from bad.

Two are trained beforehand and must fit the base model: `good` learnt sensible advice, `bad` careless advice. Two are
made of `good` here: `unloaded` has B = 0, so it changes nothing, and `broken` has large random weights. For the
embedded base model they are shipped; docs/operations.md says how to train a pair for another one. They are searched
for where `own_domain` and the screens search (`evaluator.canaries.pair_files`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from evaluator.canaries.pair_files import PairFiles, find_pair, pair_in
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import Digest
from policies.contract.release import Decision
from policies.contract.self_test import CanaryName
from policies.errors import ConfigurationError, NotAtHandError

BROKEN_SCALE = 1.0
"""Standard deviation of a broken adapter's weights; trained ones are below 0.1."""

EXPECTED: dict[CanaryName, tuple[Decision, ...]] = {
    "good": (Decision.RELEASE,),
    "bad": (Decision.REJECT,),
    "unloaded": (Decision.INCONCLUSIVE, Decision.REJECT),
    "broken": (Decision.REJECT, Decision.INCONCLUSIVE),
}
"""Decisions that a sound evaluation may come to."""


class Canary(NamedTuple):
    """An adapter of which it is known how an evaluation must end."""

    name: CanaryName
    folder: Path


def gather_canaries(pair: PairFiles, folder: Path) -> tuple[Canary, ...]:
    """The four canaries of a base model below `folder`, from its pair."""
    for name, source in zip(PairFiles._fields, pair, strict=True):
        _copy(source, folder / name)
    tensors = load_file(folder / "good" / WEIGHTS_FILE)
    zero = {name: torch.zeros_like(w) if _is_output(name) else w for name, w in tensors.items()}
    noise = torch.Generator().manual_seed(0)
    random = {name: torch.randn(w.shape, generator=noise).mul(BROKEN_SCALE).to(w.dtype) for name, w in tensors.items()}
    _write(zero, folder / "good", folder / "unloaded")
    _write(random, folder / "good", folder / "broken")
    return tuple(Canary(name, folder / name) for name in EXPECTED)


def pair_to_test(trained: Path | None, weights: Digest, cache_dir: Path) -> PairFiles:
    """The pair in `trained`, or else the one that probes of the base model would measure with.

    Args:
        weights: the base model's `weights_digest`.

    Raises:
        ConfigurationError: there is none.
    """
    if trained is None:
        try:
            return find_pair("builtin", weights, cache_dir)
        except NotAtHandError as error:
            raise ConfigurationError(f"{error.message}, or name its folder with --canaries", "canaries") from error
    pair = pair_in(trained)
    if pair is None:
        raise ConfigurationError(f"{trained} holds no two adapter folders good and bad; name their folder", "canaries")
    return pair


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(source / name, target / name)


def _write(weights: dict[str, torch.Tensor], like: Path, target: Path) -> None:
    target.mkdir()
    shutil.copyfile(like / CONFIG_FILE, target / CONFIG_FILE)
    save_file(weights, target / WEIGHTS_FILE)


def _is_output(name: str) -> bool:
    """Whether a tensor is a LoRA B, which zeroes the update."""
    return ".lora_B." in name or ".lora_embedding_B" in name
