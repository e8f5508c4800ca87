"""The files of an adapter that the service trained, which hold nothing but weights and what spec and base imply.

A folder that a training leaves behind comes from code that a tenant's data may have steered. Its configuration is not
judged but computed: from the spec follows one byte form, and any other is refused unread. The weights hold the tensors
that it names and no other, so that all who read it read the same. What lies beside it for those who load it elsewhere
follows from the base model in the same way, and is held against it by who has the base model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from policies.contract.adapter_tensors import require_plain_lora
from policies.contract.artifacts import Digest, canonical_json, digest_bytes
from policies.contract.jobs import BaseModelSpec, LoraSettings, PublishedBase
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"
COMPANION_FILES = (TEMPLATE_FILE, GENERATION_FILE)
"""What the base model gives to all its adapters; nothing of it is read here."""
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, *COMPANION_FILES)
EARLIER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""Of an adapter that was trained before companions lay beside it, and is judged, released or continued now."""
MAX_WEIGHTS_BYTES = 32 << 30
"""More than rank 1024 on all linear layers of a model of 70 billion parameters in 16 bits."""
MAX_TEXT_BYTES = 1 << 20
"""Of each of the other files; the longest chat templates have some 20 KiB."""


def adapter_config(lora: LoraSettings, base: PublishedBase) -> bytes:
    """`adapter_config.json` as PEFT from 0.10 on and servers read it; what it leaves out has PEFT's default."""
    settings: dict[str, object] = {
        "base_model_name_or_path": base.name,
        "lora_alpha": _plain_alpha(lora),
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted(lora.target_modules),
        "task_type": "CAUSAL_LM",
    }
    if base.revision is not None:
        settings["revision"] = base.revision
    if lora.dropout:
        settings["lora_dropout"] = float(lora.dropout)
    return canonical_json(settings)


def _plain_alpha(lora: LoraSettings) -> float:
    """α that gives the scale of training as α/r, which every server knows; rank-stabilised, the scale is α/√r.

    For ranks that are powers of two it is the same scale to the last bit. A whole number is written as one.
    """
    alpha = float(lora.alpha)
    if lora.use_rslora:
        alpha = alpha / math.sqrt(lora.rank) * lora.rank
    return int(alpha) if alpha.is_integer() else alpha


def _earlier_config(base: BaseModelSpec) -> bytes:
    """As it was written before: the same adapter, for those who know `use_rslora`."""
    return canonical_json(
        {
            "base_model_name_or_path": base.name,
            "bias": "none",
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": float(base.lora.alpha),
            "lora_dropout": float(base.lora.dropout),
            "peft_type": "LORA",
            "r": base.lora.rank,
            "target_modules": sorted(base.lora.target_modules),
            "task_type": "CAUSAL_LM",
            "use_rslora": base.lora.use_rslora,
        }
    )


def require_adapter(
    store: ArtifactStore,
    adapter: Digest,
    base: BaseModelSpec,
    *,
    may_be_earlier: bool = False,
    companions: Mapping[str, bytes] | None = None,
) -> None:
    """Check a stored adapter's files against what the operator's recipe for the base model gives.

    Args:
        may_be_earlier: `JobSpec.is_of_earlier_version` of the job that left it; nobody else may leave the form without
            companions, which can't be held against the base model.
        companions: what must lie beside configuration and weights, from those who read the base model.

    Raises:
        ArtifactMissingError: the folder, or one of its files, is not in the store.
        IntegrityError: there are other files, another configuration, other tensors than its pairs, or more bytes than
            any adapter has.
    """
    files = store.tree(adapter).files
    is_earlier = may_be_earlier and set(files) == set(EARLIER_FILES)
    if not is_earlier and set(files) != set(ADAPTER_FILES):
        odd = sorted(set(files) ^ set(ADAPTER_FILES))[0]
        raise IntegrityError(f"adapter {adapter} must hold {', '.join(ADAPTER_FILES)} alone; {odd!r} is wrong")
    config = _earlier_config(base) if is_earlier else adapter_config(base.lora, base.published)
    if files[CONFIG_FILE] != digest_bytes(config):
        raise IntegrityError(
            f"adapter {adapter}: its {CONFIG_FILE} is not what the recipe of base model {base.name} gives; train again"
        )
    for name, content in (companions or {}).items():
        if not is_earlier and files[name] != digest_bytes(content):
            raise IntegrityError(
                f"adapter {adapter}: its {name} is not what base model {base.name} gives its adapters; train again"
            )
    for name, digest in files.items():
        size, most = store.size_bytes(digest), MAX_WEIGHTS_BYTES if name == WEIGHTS_FILE else MAX_TEXT_BYTES
        if size > most:
            raise IntegrityError(f"adapter {adapter}: {name} has {size} bytes, {most} are allowed")
    with store.open(files[WEIGHTS_FILE]) as weights:
        require_plain_lora(weights, store.size_bytes(files[WEIGHTS_FILE]), base.lora)
