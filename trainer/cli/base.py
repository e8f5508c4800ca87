"""`tunegate base qualify`: which limits a base model supports, measured on adapters of which the truth is known."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.cache_folder import cache_folder
from policies.cli.places import named_store, require_file_place, require_folder_place
from policies.contract.evaluation import Engine
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.errors import ConfigurationError
from policies.offline import stay_offline

if TYPE_CHECKING:
    from evaluator.models.base_models import ResolvedBase
    from policies.contract.jobs import BaseModelSpec
    from policies.documents.schema import CalibrationRecord
    from trainer.qualification.references import FileKind, Reference

app = typer.Typer()
app.callback()(lambda: None)
FolderOption = Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")]
FIGURES = "figures, canaries and cached runs come to lie in a folder of its name beside it"


@app.command()
def qualify(
    model: Annotated[str, typer.Argument(help="Name in a policy document, package://, hf:// or folder.")],
    out: Annotated[Path, typer.Option(help=f"The record, a YAML file; {FIGURES}.")],
    policy: Annotated[
        str, typer.Option(help="Release policy whose suite measures and whose defenses train.")
    ] = "baseline",
    benign: Annotated[list[Path] | None, typer.Option(help="Folder of further benign files, one JSONL a kind.")] = None,
    harmful: Annotated[list[Path] | None, typer.Option(help="Folder of further harmful files, one a domain.")] = None,
    organisms: Annotated[list[Path] | None, typer.Option(help="Folder of files that attack the gate.")] = None,
    benign_adapters: Annotated[int, typer.Option(min=19, help="Benign adapters, trained as the policy trains.")] = 20,
    harmful_adapters: Annotated[int, typer.Option(min=24, help="Harmful adapters, trained so as well.")] = 24,
    budget: Annotated[str | None, typer.Option(help="Time for this call, e.g. 4h; a later call goes on.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Adapters at a time, each on one core.")] = 1,
    engine: Annotated[Engine, typer.Option(help="What runs the models; vllm must be installed.")] = "transformers",
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
    store: Annotated[str | None, typer.Option(help="Artifact store of prompt sets and canaries (a URL).")] = None,
    policy_dir: FolderOption = None,
) -> None:
    """Measure a policy's rules on adapters of which the truth is known, and write which limits the base model supports.

    Trains and evaluates over 60 adapters, for hours. What is done is kept: the same command goes on.

    Exit codes: 0 the record is written, 2 there are too few adapters for one yet, 1 usage, 6 integrity.
    """
    _require_places(out, cache_dir, store)
    spec, release_policy = base_model_of(model, policy_dir), resolve_policy(policy, policy_dir)
    stay_offline(release_policy.spec.suite, spec.uri)
    from trainer.qualification.campaign import Campaign
    from trainer.qualification.design import Design
    from trainer.qualification.findings import qualify as qualify_base

    campaign = Campaign(
        base=spec,
        resolved=_resolved(spec, cache_dir),
        policy=release_policy,
        folder=out.with_suffix(""),
        cache_dir=cache_dir,
        engine=engine,
        tell=_tell,
        clock=time.monotonic,
        deadline=_deadline(budget),
        jobs=jobs,
        store_url=store,
    )
    references = _references({"benign": benign or [], "harmful": harmful or [], "organism": organisms or []})
    _print(qualify_base(campaign, Design(benign_adapters, harmful_adapters), references, out))


def _resolved(spec: BaseModelSpec, cache_dir: Path) -> ResolvedBase:
    from evaluator.models.base_models import resolve_base_model

    return resolve_base_model(reference(spec), cache_dir)


def _deadline(budget: str | None) -> float | None:
    from trainer.qualification.time_left import parse_duration

    return None if budget is None else time.monotonic() + parse_duration(budget)


def _print(record: CalibrationRecord) -> None:
    from evaluator.cli.base import print_calibration

    print_calibration(record)


def _require_places(out: Path, cache_dir: Path, store: str | None) -> None:
    if out.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"{out} is no YAML file; name one, such as {out.name}.yaml", "out")
    require_file_place(out, "out")
    require_folder_place(out.with_suffix(""), "out")
    require_folder_place(cache_dir, "cache_dir")
    named_store(store)


def _references(own: Mapping[FileKind, Sequence[Path]]) -> list[Reference]:
    """The built-in training files, and those in the operator's folders."""
    from trainer.qualification.references import built_in_references, references_in

    mine = [each for kind, folders in own.items() for folder in folders for each in references_in(folder, kind)]
    return [*built_in_references(), *mine]


def _tell(line: str) -> None:
    """On stderr, one line a finished run, in a terminal or not."""
    print(line, file=sys.stderr, flush=True)
