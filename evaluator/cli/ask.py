"""`tunegate ask`: let a base model, with or without an adapter, answer one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policies.cache_folder import cache_folder
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError
from policies.offline import stay_offline

app = typer.Typer()


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Annotated[str, typer.Option(help="Base model: a known name, package://, hf:// or a folder.")],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096)] = 80,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR")] = None,
) -> None:
    """Print the greedy answer to one prompt."""
    if adapter is not None and not adapter.is_dir():
        raise ConfigurationError(f"{adapter} is not a folder; name the folder of a PEFT adapter", "adapter")
    base_model = reference(base_model_of(base, policy_dir))
    stay_offline(None, base_model.uri)
    from evaluator.backends.engines import open_transformers
    from evaluator.backends.protocol import ChatPrompt, GenerationSettings
    from evaluator.models.base_models import resolve_base_model

    engine = open_transformers(resolve_base_model(base_model, cache_folder()), adapter)
    settings = GenerationSettings(max_new_tokens)
    (answer,) = engine.generate([ChatPrompt.of(prompt)], settings, adapter=adapter is not None)
    typer.echo(answer.text.strip())
