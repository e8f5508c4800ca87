"""The two files of an adapter that the service trained, which hold nothing but what the job's spec implies and weights.

A folder that a training leaves behind comes from code that a tenant's data may have steered. Its configuration is not
judged but computed: from the spec follows one byte form, and any other is refused unread.
"""

from __future__ import annotations

from policies.contract.artifacts import Digest, canonical_json, digest_bytes
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
MAX_WEIGHTS_BYTES = 32 << 30
"""More than rank 1024 on all linear layers of a model of 70 billion parameters in 16 bits."""


def adapter_config(lora: LoraSettings, base_name: str) -> bytes:
    """`adapter_config.json` as PEFT reads it; what it leaves out has PEFT's default."""
    return canonical_json(
        {
            "base_model_name_or_path": base_name,
            "bias": "none",
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": float(lora.alpha),  # a default is not made a float by pydantic
            "lora_dropout": float(lora.dropout),
            "peft_type": "LORA",
            "r": lora.rank,
            "target_modules": sorted(lora.target_modules),
            "task_type": "CAUSAL_LM",
            "use_rslora": lora.use_rslora,
        }
    )


def require_adapter(store: ArtifactStore, adapter: Digest, base: BaseModelSpec) -> None:
    """Check a stored adapter's files against what the operator's recipe for the base model gives.

    Raises:
        ArtifactMissingError: the folder, or one of its files, is not in the store.
        IntegrityError: there are other files, another configuration, or more weights than any adapter has.
    """
    files = store.tree(adapter).files
    if set(files) != set(ADAPTER_FILES):
        odd = sorted(set(files) ^ set(ADAPTER_FILES))[0]
        raise IntegrityError(f"adapter {adapter} must hold {' and '.join(ADAPTER_FILES)} alone; {odd!r} is wrong")
    if files[CONFIG_FILE] != digest_bytes(adapter_config(base.lora, base.name)):
        raise IntegrityError(
            f"adapter {adapter}: its {CONFIG_FILE} is not what the recipe of base model {base.name} gives; train again"
        )
    for name, digest in files.items():
        size = store.size_bytes(digest)
        if size > MAX_WEIGHTS_BYTES:
            raise IntegrityError(f"adapter {adapter}: {name} has {size} bytes, {MAX_WEIGHTS_BYTES} are allowed")
