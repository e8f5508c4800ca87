"""A job's settings as TRL takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.sft_config import SFTConfig

from evaluator.models.loading import best_dtype, default_device
from policies.contract.jobs import Dpo, JobSpec
from trainer.loop.activation_memory import TokenBudget, token_budget
from trainer.loop.processes import world_size
from trainer.material import Material

WARMUP_STEPS = 5
VALIDATION_BATCH_ROWS = 16


def arguments(
    spec: JobSpec, material: Material, folder: Path, *, rows: int, rows_at_once: int
) -> SFTConfig | DPOConfig:
    """TRL's settings; the data order is ours (defenses place rows in it), and no row is cut.

    Args:
        folder: for checkpoints.
        rows: of a batch, in one process.
        rows_at_once: that the loader deals out; the rest is gradient accumulation.
    """
    shared = _shared(spec, material, folder) | {
        "per_device_train_batch_size": rows_at_once,
        "gradient_accumulation_steps": rows // rows_at_once,
    }
    if isinstance(spec.method, Dpo):
        return DPOConfig(**shared, beta=spec.method.beta)
    skip: dict[str, Any] = {"skip_prepare_dataset": True}  # Any: as TRL declares it
    return SFTConfig(**shared, dataset_kwargs=skip, packing=False, padding_free=spec.base_model.trainer.packing)


def _shared(spec: JobSpec, material: Material, folder: Path) -> dict[str, Any]:  # Any: arguments of two classes
    hyperparameters = material.hyperparameters
    on_gpu = default_device().type == "cuda"
    return {
        "output_dir": str(folder),
        "per_device_eval_batch_size": VALIDATION_BATCH_ROWS,
        "num_train_epochs": hyperparameters.n_epochs,
        "learning_rate": hyperparameters.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": min(WARMUP_STEPS, material.total_steps // 4),
        "weight_decay": 0.01,
        "optim": "adamw_torch",
        "seed": spec.seed,
        "data_seed": spec.seed,
        "bf16": best_dtype(default_device()) is torch.bfloat16,
        "use_cpu": not on_gpu,
        "activation_checkpointing": _checkpoints(spec, material),
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "ddp_backend": "gloo" if world_size() > 1 and not on_gpu else None,
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "eval_strategy": "no" if material.validation is None else "epoch",
        "logging_steps": 1,
        "save_total_limit": 2,
        "router_aux_loss_coef": 0.0,  # an adapter leaves routers alone, and a job's loss is that of its data
        "report_to": "none",
        "disable_tqdm": True,
    }


def _checkpoints(spec: JobSpec, material: Material) -> bool:
    """Whether activations are recomputed at all; `auto` leaves out the micro-batches that do without."""
    if spec.base_model.trainer.gradient_checkpointing != "auto":
        return spec.base_model.trainer.gradient_checkpointing == "on"
    return longest_row(material) > budget(spec, material).uncheckpointed


def longest_row(material: Material) -> int:
    """Tokens that are trained at once where a row is trained alone, at the most."""
    return max(row.n_forward_tokens for row in material.data)


def budget(spec: JobSpec, material: Material) -> TokenBudget:
    """How many tokens are trained at once, and up to how many without checkpointing where it is `auto`."""
    device = default_device()
    found = token_budget(material.model.config, spec.base_model.trainer, device, best_dtype(device))
    return found if spec.base_model.trainer.gradient_checkpointing == "auto" else found._replace(uncheckpointed=0)
