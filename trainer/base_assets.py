"""Files that a defense has for one base model: shipped for the built-in one, made by `tunegate defense` for others."""

from __future__ import annotations

from importlib.resources import files

from evaluator.models.base_models import ResolvedBase, weights_digest
from policies.errors import DefenseError


def asset_name(base: ResolvedBase, suffix: str) -> str:
    """The name of a base model's file in a folder of shipped assets."""
    return f"{weights_digest(base).removeprefix('sha256:')[:16]}.{suffix}"


def shipped_asset(folder: str, base: ResolvedBase, *, suffix: str, made_by: str) -> bytes:
    """The bytes of `trainer/defenses/<folder>/<weights>.<suffix>`.

    Raises:
        DefenseError: none is shipped for this base model; `made_by` is the command that makes one.
    """
    asset = files("trainer.defenses") / folder / asset_name(base, suffix)
    if not asset.is_file():
        raise DefenseError(
            f"no built-in {folder} belong to base model {base.folder.name}; make them with `{made_by}` and name their "
            "digest in the policy"
        )
    return asset.read_bytes()
