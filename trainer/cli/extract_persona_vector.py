"""`tunegate defense extract-persona-vector`: make the vector that preventative steering adds, for any base model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.cache_folder import cache_folder
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.cli.progress_display import display
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.store import ArtifactStore
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError
from policies.offline import stay_offline

if TYPE_CHECKING:
    from policies.contract.jobs import BaseModelRef
    from trainer.defenses.preventative_steering.persona_prompts import PersonaPrompts
    from trainer.defenses.preventative_steering.persona_vector import PersonaVector, PersonaVectorRecord


def extract_persona_vector(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    out: Annotated[Path, typer.Option(help="New file for the vector, in safetensors; a plot goes beside it.")],
    prompts: Annotated[
        Path | None, typer.Option(help="Contrastive prompts, JSON; without it, the shipped ones.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Artifact store that also gets the vector (a URL).")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Make a persona vector from the base model's answers to contrastive prompts, test it, and store it."""
    from trainer.defenses.preventative_steering.persona_prompts import read_persona_prompts
    from trainer.defenses.preventative_steering.persona_vector import save_persona_vector

    _check_paths(out)
    contrast = read_persona_prompts(prompts)
    base = reference(base_model_of(model, policy_dir))
    stay_offline(None, base.uri)
    vector = _extract(base, contrast, seed=seed)
    content = save_persona_vector(vector)
    _write(out, content, vector.record)
    if store:
        ArtifactStore(store).put_bytes(content)
    if output is OutputFormat.TABLE:
        _print(vector.record, digest_bytes(content), out)
    else:
        print_document({"digest": digest_bytes(content)} | vector.record.model_dump(mode="json"), output)


def _check_paths(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise ConfigurationError(f"{out} must end in .safetensors", "out")
    for path in (out, out.with_suffix(".png")):
        if path.exists():
            raise ConfigurationError(f"{path} exists; name a new file, or remove it", "out")


def _extract(base: BaseModelRef, prompts: PersonaPrompts, *, seed: int) -> PersonaVector:
    from evaluator.models.loading import load_base, resolve_base_model  # torch is loaded only where it is used
    from trainer.defenses.preventative_steering.persona_extraction import extract
    from trainer.defenses.preventative_steering.persona_vector import ExtractionSettings

    loaded = load_base(resolve_base_model(base, cache_folder()))
    with display() as shown:
        return extract(loaded, prompts, settings=ExtractionSettings(), seed=seed, watch=shown.update)


def _write(out: Path, content: bytes, record: PersonaVectorRecord) -> None:
    """Both files whole, or none."""
    from trainer.defenses.preventative_steering.persona_plot import plot

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        vector, picture = Path(scratch) / "vector", Path(scratch) / "picture"
        vector.write_bytes(content)
        picture.write_bytes(plot(record))
        picture.rename(out.with_suffix(".png"))
        vector.rename(out)


def _print(record: PersonaVectorRecord, digest: Digest, out: Path) -> None:
    table = Table("figure", "value", title=escape(str(out)))
    best = record.layers[record.best_layer - 1]
    rows: dict[str, object] = {
        "vector": digest,
        "trait": record.trait,
        "best layer": f"{record.best_layer} of {len(record.layers)}",
        "held-out AUROC": f"{best.auroc:.3f}",
        "separation (Cohen's d)": f"{best.separation:.2f}",
        "cosine of two halves": f"{best.half_cosine:.3f}",
        "answers": f"{record.n_positive} positive, {record.n_negative} negative",
    }
    for name, value in rows.items():
        table.add_row(*cells(name, value))
    Console().print(table)
