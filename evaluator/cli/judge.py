"""`tunegate judge`: what a judge shows on labelled answers, before it is trusted with a release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from policies.cache_folder import cache_folder
from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.progress_display import display
from policies.contract.judges import (
    Calibration,
    JudgeReport,
    LocalModelJudge,
    OpenAiCompatibleJudge,
    Panel,
    Replies,
    Rubric,
)
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError
from policies.offline import stay_offline

app = typer.Typer()
judge_app = typer.Typer(no_args_is_help=True, help="Try judges out.")
app.add_typer(judge_app, name="judge")


@judge_app.command()
def calibrate(
    policy: Annotated[str | None, typer.Option(help="Calibrate the panel of this policy: a name or a file.")] = None,
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, including /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="The endpoint's model.")] = None,
    api_key_variable: Annotated[str | None, typer.Option(help="Environment variable with the key.")] = None,
    top_logprobs: Annotated[int, typer.Option(min=0, max=20, help="0: the endpoint gives no log-probabilities.")] = 20,
    thinking_tokens: Annotated[int, typer.Option(min=0, help="Tokens that the model may think with.")] = 0,
    replies: Annotated[Replies, typer.Option(help="json_schema: the endpoint holds the model to JSON.")] = "number",
    uri: Annotated[str | None, typer.Option(help="A local model: package://, hf:// or a folder.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again even if the cache has a score.")] = False,
    cache_dir: Annotated[Path, typer.Option(help="Where models and scores are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> int:
    """Score the labelled answers and compare the judge's figures with the limits.

    Exit codes: 0 every judge may count, 4 one may not, 1 usage, 2 the judge can't be reached.
    """
    if (policy is not None) + (base_url is not None) + (uri is not None) != 1:
        raise ConfigurationError("give one of --policy, --base-url and --uri")
    rubric: Rubric = "compliant"
    if policy is not None:
        panel, rubric = _panel_of(policy, policy_dir)
    elif base_url is not None:
        panel = _endpoint(
            base_url=base_url,
            model=model,
            api_key_variable=api_key_variable,
            top_logprobs=top_logprobs,
            thinking_tokens=thinking_tokens,
            replies=replies,
        )
    else:
        panel = Panel(judges=(LocalModelJudge(uri=str(uri)),))
    stay_offline(None, panel.model_dump_json())
    reports = _calibrate(panel, cache_dir, reads_cache=not fresh)
    may_count = [report.shortfall(rubric) is None for report in reports]
    if output is OutputFormat.TABLE:
        Console().print(_table(panel, reports, may_count))
        for report, counts in zip(reports, may_count, strict=True):
            typer.echo(f"{'calibrated' if counts else 'judge_uncalibrated'}: {report.reason}")
    else:
        print_document([report.model_dump(mode="json") for report in reports], output)
    return exit_codes.OK if all(may_count) else exit_codes.INCONCLUSIVE


def _panel_of(policy: str, policy_dir: Path | None) -> tuple[Panel, Rubric]:
    """The panel, and the rubric that asks most of it: `compliant` only where a probe of the suite asks for it."""
    suite = resolve_policy(policy, policy_dir).spec.suite
    if suite.panel is None:
        raise ConfigurationError(f"the suite of policy {policy} has no panel of judges; add `panel:` to it", "panel")
    asks_compliance = any(probe.asks_for_compliance for probe in suite.probes)
    return suite.panel, "compliant" if asks_compliance else "aligned"


def _endpoint(**settings: str | int | None) -> Panel:
    if settings["model"] is None:
        raise ConfigurationError("--base-url needs --model: the name of the endpoint's model", "model")
    try:
        judge = OpenAiCompatibleJudge.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{first['loc'][0]}: {first['msg']}", str(first["loc"][0])) from error
    return Panel(judges=(judge,))


def _calibrate(panel: Panel, cache_dir: Path, *, reads_cache: bool) -> tuple[JudgeReport, ...]:
    from evaluator.judges.panel import build_panel

    stage = "labelled answers"
    with display() as shown:
        shown.update(stage, 0, None)
        return build_panel(
            panel,
            cache_dir,
            advance=lambda done, total: shown.update(stage, done, total),
            reads_cache=reads_cache,
        ).reports


def _table(panel: Panel, reports: tuple[JudgeReport, ...], may_count: list[bool]) -> Table:
    """One row a judge, with the limits as the last row."""
    table = Table("judge", "AUROC", "coherence", "compliance", "injections obeyed", "unscored", "answers", "may count")
    for settings, report, counts in zip(panel.judges, reports, may_count, strict=True):
        name = settings.model if isinstance(settings, OpenAiCompatibleJudge) else settings.uri
        detections = (report.auroc, report.coherence_detection, report.compliance_detection)
        figures = (*detections, report.injection_success, report.unscored)
        table.add_row(
            escape(name),
            *("-" if figure is None else f"{figure:.3f}" for figure in figures),
            str(report.n_answers),
            "[green]yes[/]" if counts else "[red]no[/]",
        )
    return _with_limits(table, panel.calibration)


def _with_limits(table: Table, limits: Calibration) -> Table:
    table.add_section()
    table.add_row(
        "limit",
        f"≥ {limits.min_auroc:g}",
        f"≥ {limits.min_coherence_detection:g}",
        f"≥ {limits.min_compliance_detection:g}",
        f"≤ {limits.max_injection_success:g}",
        f"≤ {limits.max_unscored:g}",
    )
    return table
