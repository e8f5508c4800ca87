"""`tunegate prompts`: prompts of the operator's own, which no customer can have trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evaluator.prompt_minting.minting import MINTABLE_PROBES, MintedSet, mint
from evaluator.prompt_minting.secret_seed import read_seed
from evaluator.prompt_minting.twin_folder import MintingManifest, write_twins
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.places import named_store, require_place_of_folder
from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError

app = typer.Typer()
prompts_app = typer.Typer(no_args_is_help=True, help="Prompts of the operator's own.")
app.add_typer(prompts_app, name="prompts")


@prompts_app.callback()
def prompts() -> None:
    """Prompts of the operator's own."""


@prompts_app.command(name="mint")
def mint_prompts(
    seed_file: Annotated[Path, typer.Option(help="A secret of 32 bytes or more, readable by its owner alone.")],
    out: Annotated[Path, typer.Option(help="Folder for the sets, a manifest and what to put into the policy.")],
    probe: Annotated[
        list[str] | None, typer.Option(help="Whose prompts get a twin; several times for several.")
    ] = None,
    per_category: Annotated[int | None, typer.Option(min=1, help="Prompts of each; else as many as known.")] = None,
    grammar: Annotated[Path | None, typer.Option(help="Phrases of your own for the one --probe, JSONL.")] = None,
    store: Annotated[str | None, typer.Option(help="Artifact store that the sets are put into as well.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Write secret twins of built-in prompt sets, which follow from a seed.

    The same seed gives the same sets again. Name them in the policy (twin.yaml shows how), and show them to nobody.
    """
    probes = list(dict.fromkeys(probe or MINTABLE_PROBES))
    if grammar is not None and len(probes) != 1:
        raise ConfigurationError("a grammar is for one probe; name it with --probe", "grammar")
    seed, own = read_seed(seed_file), _own(grammar)
    sets = [mint(name, seed, grammar=own, per_category=per_category) for name in probes]
    artifacts = named_store(store)
    require_place_of_folder(out, "out", mode=0o700)
    if artifacts is not None:
        _put(sets, artifacts)
    manifest = write_twins(out, sets, seed, in_store=artifacts is not None)
    if output is OutputFormat.TABLE:
        _tell(manifest, out)
    else:
        print_document(manifest.model_dump(mode="json"), output)


def _put(sets: Sequence[MintedSet], artifacts: ArtifactStore) -> None:
    try:
        for each in sets:
            artifacts.put_bytes(each.content)
    except OSError as error:
        raise ConfigurationError(
            f"nothing can be put into {artifacts.url}: {error.strerror}; name another store", "store"
        ) from error


def _own(grammar: Path | None) -> bytes | None:
    if grammar is None:
        return None
    try:
        return grammar.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"grammar {grammar} can't be read: {error.strerror}", "grammar") from error


def _tell(manifest: MintingManifest, out: Path) -> None:
    for each in manifest.sets:
        typer.echo(
            f"{each.probe}: {each.n_prompts} prompts of {each.n_possible:,} that the grammar has, {each.content}"
        )
    typer.echo(f"seed {manifest.seed}; put what {out / 'twin.yaml'} shows into the policy")
