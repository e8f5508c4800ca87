"""`tunegate train`: the service's fine-tuning in the foreground."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.cache_folder import cache_folder
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.cli.progress_display import display
from policies.contract.artifacts import digest_file
from policies.contract.defenses import DEFENSE_NAMES, DefenseSettings
from policies.contract.hyperparameters import Auto, Hyperparameters
from policies.contract.jobs import Dpo, JobSpec, Method, MethodName, Supervised
from policies.contract.store import ArtifactStore
from policies.contract.training import TrainingRecord
from policies.documents.base_models import base_model_of
from policies.documents.loader import resolve_policy
from policies.documents.suggestions import did_you_mean
from policies.errors import ConfigurationError
from policies.offline import stay_offline

if TYPE_CHECKING:
    from policies.contract.worker_api import Progress, WorkerEvent

app = typer.Typer()


class Inputs(NamedTuple):
    """What a training on the command line reads."""

    data: Path
    validation: Path | None
    store: ArtifactStore | None


@app.command()
def train(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    data: Annotated[Path, typer.Option(help="JSONL of chat rows, or of preference rows, to train on.")],
    out: Annotated[Path, typer.Option(help="New folder for the adapter and the training record.")],
    validation: Annotated[Path | None, typer.Option(help="JSONL for the validation loss.")] = None,
    policy: Annotated[str | None, typer.Option(help="Release policy whose defenses apply; a name or a file.")] = None,
    defense: Annotated[list[str] | None, typer.Option(help="Defense with its defaults; may be repeated.")] = None,
    epochs: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    lr_multiplier: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    method: Annotated[MethodName, typer.Option(help="dpo learns from preference rows.")] = MethodName.SUPERVISED,
    beta: Annotated[str, typer.Option(help="For dpo: how near to the base it stays; a number, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    store: Annotated[str | None, typer.Option(help="Artifact store of pools, vectors and scores (a URL).")] = None,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Fine-tune a LoRA adapter under the defenses of a policy, or under named ones; no service is needed."""
    inputs = Inputs(data, validation, ArtifactStore(store) if store else None)
    _check_paths(inputs, out)
    release_policy, how = resolve_policy(policy or "baseline", policy_dir), _method(method, beta)
    spec = JobSpec(
        job_id="foreground",
        base_model=base_model_of(model, policy_dir),
        method=how,
        training_file=digest_file(data),
        validation_file=digest_file(validation) if validation else None,
        hyperparameters=_hyperparameters(epochs, batch_size, lr_multiplier),
        seed=seed,
        defenses=_defenses(defense or [], release_policy.spec.defenses_for(how) if policy else None),
        suite=release_policy.spec.suite,
        policy=release_policy.digest,
    )
    record = _run(spec, inputs, out)
    _print(record, out, output)


def _check_paths(inputs: Inputs, out: Path) -> None:
    for path in (inputs.data, inputs.validation):
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


def _method(name: MethodName, beta: str) -> Method:
    if name is MethodName.SUPERVISED:
        if beta != "auto":
            raise ConfigurationError("beta belongs to method dpo; leave it out, or add --method dpo", "beta")
        return Supervised()
    try:
        return Dpo() if beta == "auto" else Dpo(beta=float(beta))
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(f"beta: {error}; give a number above 0 and at most 2, or auto", "beta") from error


def _auto_or(kind: type, text: str) -> Auto:
    value: Auto = "auto" if text == "auto" else kind(text)
    return value


def _defenses(names: list[str], of_policy: tuple[DefenseSettings, ...] | None) -> tuple[DefenseSettings, ...]:
    if of_policy is not None and names:
        raise ConfigurationError("give --policy or --defense, not both: a policy brings its own defenses")
    if of_policy is not None:
        return of_policy
    for name in names:
        if name not in DEFENSE_NAMES:
            raise ConfigurationError(f"defense {name!r} is unknown; {did_you_mean(name, DEFENSE_NAMES)}", "defense")
    settings: TypeAdapter[DefenseSettings] = TypeAdapter(DefenseSettings)
    return tuple(settings.validate_python({"name": name}) for name in dict.fromkeys(names))


def _run(spec: JobSpec, inputs: Inputs, out: Path) -> TrainingRecord:
    """Train in a folder beside `out`, and move it there once it is whole."""
    stay_offline(spec.suite, spec.model_dump_json())
    from evaluator.models.allocator import keep_freed_memory
    from trainer.loop.progress import Hooks  # torch is loaded only where it is used
    from trainer.recipe import RunFiles, train

    keep_freed_memory()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch, display() as shown:
        folder = Path(scratch)

        def report(event: WorkerEvent) -> None:
            progress = event.progress
            if progress is None:
                shown.tell(event.message or "")
            else:
                shown.update("training", progress.step, progress.total_steps, figures=_figures(progress))

        run_files = RunFiles(inputs.data, inputs.validation, folder, cache_folder(), inputs.store)
        record = train(spec, run_files, Hooks(report, should_stop=lambda: False))
        result = folder / "result"
        result.mkdir()
        for name in {"adapter"} | {name for item in record.evidence for name in item.digests}:
            (folder / name).rename(result / name)
        (result / "training-record.json").write_bytes(record.canonical())
        shutil.move(result, out)
    return record


def _figures(progress: Progress) -> str:
    """Beside the bar, or in the line."""
    named = {"train_loss": "loss", "valid_loss": "validation loss", "kl": "kl"}
    shown = [f"{name} {progress.figures[key]:.4g}" for key, name in named.items() if key in progress.figures]
    speed = progress.figures.get("tokens_per_second")
    return ", ".join([*shown, *([] if speed is None else [f"{speed:.0f} tokens/s"])])


def _print(record: TrainingRecord, out: Path, output: OutputFormat) -> None:
    if output is not OutputFormat.TABLE:
        print_document(record.model_dump(mode="json"), output)
        return
    table = Table("figure", "value", title=escape(str(out)))
    rows: dict[str, object] = {
        "adapter": record.adapter,
        "steps": record.total_steps,
        "trained tokens": record.trained_tokens,
        "train loss": f"{record.train_loss:.4f}",
        "validation loss": "–" if record.valid_loss is None else f"{record.valid_loss:.4f}",
        "tokens per second": f"{record.tokens_per_second:.0f}",
    }
    for name, value in rows.items():
        table.add_row(*cells(name, value))
    for item in record.evidence:
        table.add_row(*cells(f"defense {item.name}", item.explanation))
    Console().print(table)
