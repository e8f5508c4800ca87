"""`tunegate evaluate`: judge a PEFT adapter on this machine, also one that was trained elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evaluator.allocator import keep_freed_memory
from evaluator.gate import decide
from evaluator.summary import decision_document, decision_table
from policies import exit_codes
from policies.base_models import base_model_of, reference
from policies.contract.artifacts import digest_file, digest_tree
from policies.contract.dataset import read_rows
from policies.contract.jobs import BaseModelRef
from policies.contract.worker_api import Progress as ProgressRecord
from policies.errors import ConfigurationError
from policies.loader import resolve_policy
from policies.output import OUTPUT_OPTION, OutputFormat, print_document

if TYPE_CHECKING:
    from evaluator.evaluate import Evaluation
    from evaluator.progress import Watch
    from policies.schema import ReleasePolicy

app = typer.Typer()
CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunegate"


@app.command()
def evaluate(
    base: Annotated[str, typer.Option(help="Base model: a name of a policy document, package://, hf:// or a folder.")],
    adapter: Annotated[Path, typer.Option(help="Folder of a PEFT LoRA adapter in safetensors.")],
    policy: Annotated[str, typer.Option(help="Release policy: a preset's name or a YAML file.")],
    validation: Annotated[Path | None, typer.Option(help="Chat JSONL to measure the validation loss on.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
    report: Annotated[Path | None, typer.Option(help="Write the report here, and its samples beside it.")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = CACHE_DIR,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
) -> int:
    """Measure an adapter against its base and decide by a policy.

    Exit codes: 0 release, 3 rejected, 4 inconclusive, 1 usage, 2 runtime, 6 integrity.
    """
    release_policy = resolve_policy(policy, policy_dir)
    base_model = reference(base_model_of(base, policy_dir))
    if not adapter.is_dir():
        raise ConfigurationError(f"{adapter} is no folder; name the folder of a PEFT adapter", "adapter")
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("loading", total=None)

        def watch(progress: ProgressRecord) -> None:
            bar.update(task, description=progress.stage, completed=progress.step, total=progress.total_steps)

        evaluation = _evaluate(base_model, adapter, release_policy, validation=validation, where=(cache_dir, watch))
    decision = decide(release_policy, evaluation.report)
    if report is not None:
        report.write_bytes(evaluation.report.canonical())
        report.with_suffix(".samples.jsonl").write_bytes(evaluation.samples)
    if output is OutputFormat.TABLE:
        Console().print(decision_table(decision))
        for line in (decision.decision.value, *decision.reasons):
            typer.echo(line)
    else:
        print_document(decision_document(decision, evaluation.report), output)
    return exit_codes.of_decision(decision.decision)


def _evaluate(
    base: BaseModelRef,
    adapter: Path,
    policy: ReleasePolicy,
    *,
    validation: Path | None,
    where: tuple[Path, Watch],
) -> Evaluation:
    from evaluator.adapters import attach_adapter, prove_adapter
    from evaluator.backends.transformers_backend import TransformersBackend
    from evaluator.evaluate import Examination, evaluate_adapter
    from evaluator.model import load_base, resolve_base_model
    from evaluator.probe import ValidationRows

    keep_freed_memory()
    cache_dir, watch = where
    rows = ValidationRows(digest_file(validation), read_rows(validation)) if validation else None
    digest = digest_tree(adapter)
    loaded = attach_adapter(load_base(resolve_base_model(base, cache_dir)), adapter)
    backend = TransformersBackend(loaded)
    examination = Examination(
        suite=policy.spec.suite,
        policy=policy.digest,
        proof=prove_adapter(backend, loaded, digest),
        validation=rows,
    )
    return evaluate_adapter(examination, backend, cache_dir=cache_dir, watch=watch)
