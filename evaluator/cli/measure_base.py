"""`tunegate measure-base`: the base model's side of an evaluation, ahead of the first adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.cache_folder import cache_folder
from policies.cli.places import named_store
from policies.contract.artifacts import digest_file
from policies.datasets.reader import read_rows
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy

if TYPE_CHECKING:
    from evaluator.runner.base_results import BaseResult

app = typer.Typer()


@app.command()
def measure_base(
    base: Annotated[str, typer.Option(help="Base model: name in a policy document, package://, hf:// or folder.")],
    policy: Annotated[str, typer.Option(help="Release policy: a preset's name or a YAML file.")],
    validation: Annotated[Path | None, typer.Option(help="Validation file of a future job.")] = None,
    training: Annotated[Path | None, typer.Option(help="Training file of a future job.")] = None,
    store: Annotated[str | None, typer.Option(help="Artifact store of prompt sets and canaries (a URL).")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
) -> None:
    """Measure a base model by a policy's suite, so that evaluations find its results."""
    from evaluator.backends.engines import open_transformers
    from evaluator.models.allocator import keep_freed_memory
    from evaluator.models.loading import resolve_base_model
    from evaluator.runner.base_results import BaseUnderTest, measure_suite
    from evaluator.subject import FileRows

    shelf = named_store(store)
    suite = resolve_policy(policy, policy_dir).spec.suite
    keep_freed_memory()
    resolved = resolve_base_model(reference(base_model_of(base, policy_dir)), cache_dir)
    validation_rows, training_rows = (
        FileRows(digest_file(path), read_rows(path)) if path else None for path in (validation, training)
    )
    under_test = BaseUnderTest(open_transformers(resolved), resolved.digest, validation_rows, training_rows, shelf)
    measure_suite(suite, under_test, cache_dir=cache_dir, tell=_tell)


def _tell(result: BaseResult) -> None:
    what = result.error or f"{result.n_samples} samples in {result.seconds:.0f} s"
    typer.echo(f"{result.probe}: {what}")
