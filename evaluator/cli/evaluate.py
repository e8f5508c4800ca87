"""`tunegate evaluate`: judge a PEFT adapter on this machine, also one that was trained elsewhere."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from evaluator.cli.page import write_page
from evaluator.cli.summary import decision_document, decision_table, notes, self_test_table
from evaluator.gate import decide
from evaluator.runner.local import LocalEvaluator
from evaluator.runner.rescoring import Filed, samples_path
from policies.cache_folder import cache_folder
from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.places import (
    named_store,
    require_file_place,
    require_folder_place,
    require_place_of_folder,
    require_readable_file,
)
from policies.cli.progress_display import display
from policies.contract.evaluation import Engine, EvalReport
from policies.contract.release import GateDecision
from policies.contract.worker_api import Progress
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError
from policies.offline import stay_offline

if TYPE_CHECKING:
    from evaluator.runner.evaluate import Evaluation
    from evaluator.runner.progress import Watch
    from policies.contract.jobs import BaseModelSpec
    from policies.documents.schema import CalibrationRecord, ReleasePolicy

app = typer.Typer()


@app.command()
def evaluate(
    base: Annotated[str, typer.Option(help="Base model: name in a policy document, package://, hf:// or folder.")],
    policy: Annotated[str, typer.Option(help="Release policy: a preset's name or a YAML file.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT LoRA adapter in safetensors.")] = None,
    canonical: Annotated[
        Path | None, typer.Option(help="Write the adapter here in the form that is released, and judge that.")
    ] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="Judge known adapters instead.")] = False,
    canaries: Annotated[Path | None, typer.Option(help="Folder of a `good` and a `bad` adapter to self-test.")] = None,
    validation: Annotated[Path | None, typer.Option(help="JSONL to measure the validation loss on.")] = None,
    training: Annotated[Path | None, typer.Option(help="JSONL that the adapter was trained on.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Calibration record of the base model.")] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the models; vllm must be installed.")] = "transformers",
    store: Annotated[str | None, typer.Option(help="Artifact store of prompt sets and canaries (a URL).")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
    report: Annotated[Path | None, typer.Option(help="Write the report here, and its samples beside it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page here.")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
) -> int:
    """Measure an adapter against its base and decide by a policy.

    Exit codes: 0 release (or self-test passed), 3 rejected (or failed), 4 inconclusive, 1 usage, 2 runtime,
    6 integrity.
    """
    _require_adapter(adapter, canonical, self_test=self_test)
    _require_places(report=report, html=html)
    _require_files(validation=validation, training=training)
    require_folder_place(cache_dir, "cache_dir")
    base_model, release_policy = reference(base_model_of(base, policy_dir)), resolve_policy(policy, policy_dir)
    shelf = named_store(store)
    record = _matching(calibration, base_model_of(base, policy_dir), release_policy, cache_dir)
    stay_offline(release_policy.spec.suite, base_model.uri)
    with _watched() as watch:
        evaluator = LocalEvaluator(base_model, release_policy, cache_dir, watch, validation, training, engine, shelf)
        if adapter is None:
            return _self_test(evaluator, canaries, record, output)
        evaluation = evaluator.evaluate(adapter if canonical is None else _canonical(adapter, canonical))
    decision = decide(release_policy, evaluation.report, calibration=record)
    _keep(evaluation, report)
    if html is not None:
        write_page(html, Filed(evaluation.report, release_policy, evaluation.samples), decision, title=adapter.name)
    _print(decision, evaluation.report, output)
    return exit_codes.of_decision(decision.decision)


def _keep(evaluation: Evaluation, report: Path | None) -> None:
    if report is not None:
        report.write_bytes(evaluation.report.canonical())
        samples_path(report).write_bytes(evaluation.samples)


def _require_adapter(adapter: Path | None, canonical: Path | None, *, self_test: bool) -> None:
    if self_test == (adapter is not None):
        raise ConfigurationError("name the folder of an adapter, or ask for --self-test", "adapter")
    if adapter is not None and not os.path.isdir(adapter):
        raise ConfigurationError(f"{adapter} is not a folder; name the folder of a PEFT adapter", "adapter")
    if canonical is not None and self_test:
        raise ConfigurationError("a self-test judges known adapters; leave --canonical out", "canonical")
    if canonical is not None:
        require_place_of_folder(canonical, "canonical")


def _require_places(**files: Path | None) -> None:
    for option, path in files.items():
        if path is not None:
            require_file_place(path, option)


def _require_files(**files: Path | None) -> None:
    for option, path in files.items():
        if path is not None:
            require_readable_file(path, option)


def _matching(
    calibration: Path | None, spec: BaseModelSpec, policy: ReleasePolicy, cache_dir: Path
) -> CalibrationRecord | None:
    if calibration is None:
        return None
    from evaluator.base_checks.record_match import matching_record

    return matching_record(calibration, spec, policy, cache_dir)


def _canonical(adapter: Path, target: Path) -> Path:
    from evaluator.models.canonical_adapter import write_canonical

    return write_canonical(adapter, target)


def _print(decision: GateDecision, report: EvalReport, output: OutputFormat) -> None:
    if output is not OutputFormat.TABLE:
        print_document(decision_document(decision, report), output)
        return
    Console().print(decision_table(decision))
    for line in (decision.decision.value, *decision.reasons, *notes(decision)):
        typer.echo(line)


def _self_test(
    evaluator: LocalEvaluator, trained: Path | None, calibration: CalibrationRecord | None, output: OutputFormat
) -> int:
    from evaluator.models.base_models import resolve_base_model, weights_digest
    from evaluator.self_test.canaries import gather_canaries, pair_to_test
    from evaluator.self_test.running import Bar, keep_self_test, run_self_test

    base = resolve_base_model(evaluator.base, evaluator.cache_dir)
    pair = pair_to_test(trained, weights_digest(base), evaluator.cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        result = run_self_test(
            Bar(evaluator.policy, calibration),
            base.digest,
            gather_canaries(pair, Path(folder)),
            lambda canary: evaluator.evaluate(canary.folder).report,
            now=time.time,
        )
    result = keep_self_test(result, evaluator.cache_dir)
    if output is OutputFormat.TABLE:
        Console().print(self_test_table(result))
        typer.echo("passed" if result.passed else "failed")
        if result.drift is not None and result.drift.is_alarm:
            typer.echo(f"warning: {result.drift.told}")
    else:
        print_document(result.model_dump(mode="json") | {"passed": result.passed}, output)
    return exit_codes.OK if result.passed else exit_codes.REJECTED


@contextmanager
def _watched() -> Iterator[Watch]:
    """Progress in percent of the suite, on stderr."""
    with display(one_bar=True) as shown:
        shown.update("loading", 0, None)

        def watch(progress: Progress) -> None:
            shown.update(progress.stage, progress.step, progress.total_steps, eta_seconds=progress.eta_seconds)

        yield watch
