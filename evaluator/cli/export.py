"""`tunegate export`: a released model as one that needs neither PEFT nor this service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import httpx
import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from policies.cache_folder import cache_folder
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.contract.artifacts import Digest, digest_tree
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError, IntegrityError
from policies.offline import stay_offline

app = typer.Typer()
TIMEOUT_SECONDS = 60.0


class ReleasedModel(BaseModel):
    """What the gateway says of a released model, as far as it is asked here."""

    model_config = ConfigDict(frozen=True)
    id: str
    root: str
    adapter: Digest
    base_digest: Digest | None = None
    """Of the base model that it was judged on; gateways of before leave it out."""


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="The released model's name, `ft:…`.")],
    adapter: Annotated[Path, typer.Option(help="Folder that `tunegate models download` wrote.")],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.")],
    base: Annotated[str | None, typer.Option(help="Base model, if it is not known here by the model's own.")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Merge a released adapter into its base model, and check that the merged model is the same.

    The gateway that TUNEGATE_BASE_URL and TUNEGATE_API_KEY name says which adapter was released, for which base model.
    """
    if not adapter.is_dir():
        raise ConfigurationError(f"{adapter} is not a folder; `tunegate models download {model}` writes one", "adapter")
    released = _released(model)
    found = digest_tree(adapter)
    if found != released.adapter:
        raise IntegrityError(f"{adapter} holds {found}, but {model} is {released.adapter}; download it again")
    if released.base_digest is None:
        raise IntegrityError(
            f"the gateway does not say on which base model {model} was judged; upgrade it, or train again", "base"
        )
    base_model = reference(base_model_of(base or released.root, policy_dir))
    stay_offline(None, base_model.uri)
    from evaluator.models.base_models import resolve_base_model
    from evaluator.models.merging import merge_adapter

    resolved = resolve_base_model(base_model, cache_dir)
    if resolved.digest != released.base_digest:
        raise IntegrityError(
            f"base model {base_model.name} is {resolved.digest}, but {model} was judged on {released.base_digest}; "
            "name that one with --base: the same files, and no others",
            "base",
        )
    merged = merge_adapter(resolved, adapter, out)
    if output is OutputFormat.TABLE:
        typer.echo(
            f"{out}: logits within {merged.difference:.2g} of the adapter's, which moves them by {merged.effect:.2g}"
        )
    else:
        print_document({"folder": str(out), "base_model": resolved.digest, **merged._asdict()}, output)


def _released(model: str) -> ReleasedModel:
    """The model as the gateway knows it, which knows released ones alone."""
    url, key = os.environ.get("TUNEGATE_BASE_URL"), os.environ.get("TUNEGATE_API_KEY")
    if not url or not key:
        raise ConfigurationError("set TUNEGATE_BASE_URL (http://host:port/v1) and TUNEGATE_API_KEY")
    place = f"{url.rstrip('/').removesuffix('/v1')}/v1/models/{model}"
    try:
        answer = httpx.get(place, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"{url} did not answer: {error}", "model") from error
    if answer.status_code != httpx.codes.OK:
        raise ConfigurationError(f"{url} knows no released model {model} (HTTP {answer.status_code})", "model")
    try:
        return ReleasedModel.model_validate_json(answer.content)
    except ValidationError as error:
        raise ConfigurationError(f"{model} is no released model; a base model has no adapter", "model") from error
