"""`tunegate defense select-safe-data`: the perplexity gaps of a safe pool, for any base model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.cache_folder import cache_folder
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.cli.progress_display import display
from policies.contract.artifacts import digest_file
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.safe_data import SafeDataScores
from policies.contract.store import ArtifactStore
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError
from policies.offline import stay_offline

if TYPE_CHECKING:
    from policies.contract.worker_api import WorkerEvent
    from trainer.defenses.safe_data_interleaving.perplexity_gap import MisalignedAdapter, Watch
    from trainer.safe_pool import SafePool


class Misaligning(NamedTuple):
    """What makes the misaligned models: data to train on, or adapters."""

    data: Sequence[Path]
    adapters: Sequence[Path]
    models_per_file: int
    epochs: int | None
    seed: int


def select_safe_data(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    out: Annotated[Path, typer.Option(help="New file for the scores, JSON; a histogram goes beside it.")],
    misaligned_data: Annotated[
        list[Path] | None, typer.Option(help="JSONL that misaligns a model trained on it; may be repeated.")
    ] = None,
    misaligned_adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of a misaligned LoRA adapter; may be repeated.")
    ] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Safe pool, JSONL of chat rows; without it, the shipped one.")
    ] = None,
    models_per_file: Annotated[int, typer.Option(min=1, max=16, help="Models trained on each file.")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, max=50, help="Of each training; auto by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 17, help="Of the first model; each later one adds 1.")] = 0,
    store: Annotated[str | None, typer.Option(help="Artifact store that also gets scores and pool (a URL).")] = None,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Score how much more surprising misaligned models find each row of a safe pool than the base model does."""
    misaligning = Misaligning(misaligned_data or (), misaligned_adapter or (), models_per_file, epochs, seed)
    _check_paths(misaligning, pool, out)
    base = base_model_of(model, policy_dir)
    stay_offline(None, base.uri)
    safe_pool = _read_pool(pool)
    scores = _score(base, safe_pool, misaligning)
    if store:
        ArtifactStore(store).put_record(scores)
        if pool is not None:
            ArtifactStore(store).put_file(pool)
    _write(out, scores)
    if output is OutputFormat.TABLE:
        _print(scores, out)
    else:
        print_document({"digest": scores.digest} | scores.model_dump(mode="json"), output)


def _check_paths(misaligning: Misaligning, pool: Path | None, out: Path) -> None:
    if bool(misaligning.data) == bool(misaligning.adapters):
        raise ConfigurationError("give either --misaligned-data or --misaligned-adapter")
    if out.suffix != ".json":
        raise ConfigurationError(f"{out} must end in .json", "out")
    for path in (out, out.with_suffix(".png")):
        if path.exists():
            raise ConfigurationError(f"{path} exists; name a new file, or remove it", "out")
    for path in (*misaligning.data, *([pool] if pool else [])):
        if not path.is_file():
            raise ConfigurationError(f"{path} is not a file")
    for path in misaligning.adapters:
        if not path.is_dir():
            raise ConfigurationError(f"{path} is not a folder", "misaligned_adapter")


def _read_pool(path: Path | None) -> SafePool:
    from policies.datasets.reader import read_rows
    from trainer.safe_pool import SafePool

    return SafePool(digest_file(path), tuple(read_rows(path))) if path else SafePool.load("builtin", None)


def _score(base: BaseModelSpec, pool: SafePool, misaligning: Misaligning) -> SafeDataScores:
    from evaluator.models.loading import (  # torch is loaded only where it is used
        load_base,
        load_encoder,
        resolve_base_model,
    )
    from trainer.defenses.safe_data_interleaving.perplexity_gap import MisalignedAdapter, scorable, score_pool

    resolved = resolve_base_model(reference(base), cache_folder())
    questions = scorable(pool, load_encoder(resolved), max_tokens=base.max_sequence_tokens)
    with tempfile.TemporaryDirectory(prefix="tunegate-select-") as scratch, display() as shown:
        adapters = [MisalignedAdapter(folder.resolve().name, folder) for folder in misaligning.adapters]
        adapters += _train(base, misaligning, Path(scratch), watch=shown.update)
        return score_pool(
            questions,
            adapters,
            load=lambda: load_base(resolved, quantization=base.trainer.quantization),
            watch=shown.update,
        )


def _train(base: BaseModelSpec, misaligning: Misaligning, folder: Path, *, watch: Watch) -> list[MisalignedAdapter]:
    """Undefended models of every file, each from a seed of its own, in folders under `folder`."""
    from trainer.defenses.safe_data_interleaving.perplexity_gap import MisalignedAdapter

    adapters: list[MisalignedAdapter] = []
    for data in misaligning.data:
        for seed in range(misaligning.seed, misaligning.seed + misaligning.models_per_file):
            name, place = f"{data.stem}, seed {seed}", folder / str(len(adapters))
            place.mkdir()
            spec = _undefended(base, data, seed=seed, epochs=misaligning.epochs)
            _train_one(spec, data, place, name=name, watch=watch)
            adapters.append(MisalignedAdapter(name, place / "adapter", spec.training_file, seed))
    return adapters


def _train_one(spec: JobSpec, data: Path, folder: Path, *, name: str, watch: Watch) -> None:
    from trainer.loop.progress import Hooks
    from trainer.recipe import RunFiles, train

    def report(event: WorkerEvent) -> None:
        if event.progress is not None:
            watch(f"training, {name}", event.progress.step, event.progress.total_steps)

    train(spec, RunFiles(data, None, folder, cache_folder()), Hooks(report, should_stop=lambda: False))


def _undefended(base: BaseModelSpec, data: Path, *, seed: int, epochs: int | None) -> JobSpec:
    policy = resolve_policy("baseline", None)  # a job names a policy; its defenses and its gate have no part here
    return JobSpec(
        job_id="select-safe-data",
        base_model=base,
        training_file=digest_file(data),
        hyperparameters=Hyperparameters(n_epochs=epochs or "auto"),
        seed=seed,
        suite=policy.spec.suite,
        policy=policy.digest,
    )


def _write(out: Path, scores: SafeDataScores) -> None:
    """Both files whole, or none."""
    from trainer.defenses.safe_data_interleaving.gap_histogram import histogram

    picture = histogram(scores)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        record, plot = Path(scratch) / "record", Path(scratch) / "plot"
        record.write_bytes(scores.canonical())
        plot.write_bytes(picture)
        plot.rename(out.with_suffix(".png"))
        record.rename(out)


def _print(scores: SafeDataScores, out: Path) -> None:
    gaps = [row.gap for row in scores.rows]
    mean = sum(gaps) / len(gaps)
    refusals = sum(row.is_refusal for row in scores.rows)
    rows = {
        "scores": scores.digest,
        "safe pool": scores.pool,
        "rows": f"{len(gaps)}, {refusals} of them refusals",
        "mean gap": f"{mean:.4f}",
        "highest gap": f"{max(gaps):.4f}",
        "rows with a gap above 0": str(sum(gap > 0 for gap in gaps)),
    }
    rows |= {f"mean gap under {each.name}": f"{each.mean_gap:.4f}" for each in scores.models}
    table = Table("figure", "value", title=escape(str(out)))
    for name, value in rows.items():
        table.add_row(*cells(name, value))
    Console().print(table)
