"""`tunegate train`: the service's fine-tuning in the foreground."""

from __future__ import annotations

import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from policies.base_models import base_model_of, reference
from policies.contract.artifacts import digest_file
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import Auto, Hyperparameters, JobSpec
from policies.contract.training import TrainingRecord
from policies.errors import ConfigurationError
from policies.loader import resolve_policy
from policies.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.schema import ReleasePolicy

if TYPE_CHECKING:
    from policies.contract.worker_api import WorkerEvent

app = typer.Typer()


class DefenseName(StrEnum):
    KL_PENALTY = "kl_penalty"
    SAFE_DATA_INTERLEAVING = "safe_data_interleaving"


@app.command()
def train(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    data: Annotated[Path, typer.Option(help="Chat JSONL to train on.")],
    out: Annotated[Path, typer.Option(help="New folder for the adapter and the training record.")],
    validation: Annotated[Path | None, typer.Option(help="Chat JSONL for the validation loss.")] = None,
    policy: Annotated[str | None, typer.Option(help="Release policy whose defenses train; a name or a file.")] = None,
    defense: Annotated[
        list[DefenseName] | None, typer.Option(help="Defense with its defaults; may be repeated.")
    ] = None,
    epochs: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    lr_multiplier: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Fine-tune a LoRA adapter under the defenses of a policy, or under named ones; no service is needed."""
    if policy and defense:
        raise ConfigurationError("give --policy or --defense, not both: a policy brings its own defenses")
    _check_paths(data, validation, out)
    base = base_model_of(model, policy_dir)
    release_policy = resolve_policy(policy or "baseline", policy_dir)
    spec = JobSpec(
        job_id="foreground",
        base_model=reference(base),
        lora=base.lora,
        base_learning_rate=base.base_learning_rate,
        max_sequence_tokens=base.max_sequence_tokens,
        training_file=digest_file(data),
        validation_file=digest_file(validation) if validation else None,
        hyperparameters=_hyperparameters(epochs, batch_size, lr_multiplier),
        seed=seed,
        defenses=_defenses(release_policy if policy else None, defense or []),
        suite=release_policy.spec.suite,
        policy=release_policy.digest,
    )
    record = _run(spec, (data, validation), out, console=Console(stderr=True))
    if output is OutputFormat.TABLE:
        _print(record, out)
    else:
        print_document(record.model_dump(mode="json"), output)


def _check_paths(data: Path, validation: Path | None, out: Path) -> None:
    for path in (data, validation):
        if path is not None and not path.is_file():
            raise ConfigurationError(f"there is no file {path}")
    if out.exists():
        raise ConfigurationError(f"{out} exists; name a new folder, or remove it", "out")


def _hyperparameters(epochs: str, batch_size: str, multiplier: str) -> Hyperparameters:
    try:
        return Hyperparameters(
            n_epochs=_auto_or(int, epochs),
            batch_size=_auto_or(int, batch_size),
            learning_rate_multiplier=_auto_or(float, multiplier),
        )
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(f"hyperparameters: {error}; give numbers, or auto") from error


def _auto_or(kind: type, text: str) -> Auto:
    value: Auto = "auto" if text == "auto" else kind(text)
    return value


def _defenses(policy: ReleasePolicy | None, names: list[DefenseName]) -> tuple[DefenseSettings, ...]:
    if policy is not None:
        return policy.spec.defenses
    settings: TypeAdapter[DefenseSettings] = TypeAdapter(DefenseSettings)
    return tuple(settings.validate_python({"name": name.value}) for name in dict.fromkeys(names))


def _run(spec: JobSpec, files: tuple[Path, Path | None], out: Path, *, console: Console) -> TrainingRecord:
    """Train in a folder beside `out`, and move it there once it is whole."""
    from trainer.progress import Hooks  # torch is loaded only where it is used
    from trainer.recipe import Workplace, train

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch, _bar(console) as bar:
        folder, task = Path(scratch), bar.add_task("training", total=None, figures="")

        def report(event: WorkerEvent) -> None:
            if event.progress is None:
                bar.console.print(event.message)
                return
            figures = event.progress.figures
            shown = ", ".join(f"{name} {figures[name]:.4g}" for name in ("train_loss", "kl") if name in figures)
            bar.update(task, completed=event.progress.step, total=event.progress.total_steps, figures=shown)

        workplace = Workplace(*files, folder, Path.home() / ".cache" / "tunegate")
        record = train(spec, workplace, Hooks(report, should_stop=lambda: False))
        result = folder / "result"
        result.mkdir()
        (folder / "adapter").rename(result / "adapter")
        (result / "training-record.json").write_bytes(record.canonical())
        shutil.move(result, out)
    return record


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def _print(record: TrainingRecord, out: Path) -> None:
    table = Table("figure", "value", title=str(out))
    rows: dict[str, object] = {
        "adapter": record.adapter,
        "steps": record.total_steps,
        "trained tokens": record.trained_tokens,
        "train loss": f"{record.train_loss:.4f}",
        "validation loss": "–" if record.valid_loss is None else f"{record.valid_loss:.4f}",
        "tokens per second": f"{record.tokens_per_second:.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    for item in record.evidence:
        table.add_row(f"defense {item.name}", item.explanation)
    Console().print(table)
